"""Queue and store under TLS, with certificates on both sides."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.queue import RedisQueue
from fer_stream.config.servers import QueueSettings
from fer_stream.errors import QueueError

PASSWORD = "p@ss/w0rd#"


@dataclass
class Server:
    folder: Path
    port: int

    def settings(self, **tls: Path) -> QueueSettings:
        return QueueSettings.model_validate(
            {
                "url": f"rediss://localhost:{self.port}/0",
                "username": "worker",
                "password": PASSWORD,
                "tls": {key: str(path) for key, path in tls.items()},
            }
        )

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Server]:
    """Debian's redis-server with TLS alone, which wants a certificate of its clients too."""
    made = Server(tmp_path_factory.mktemp("tls"), free_port())
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(made.path("ca"))
    stranger.cert_pem.write_to_path(made.path("stranger"))
    for name in ("localhost", "worker"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(made.path(f"{name}-key"))
        issued.cert_chain_pems[0].write_to_path(made.path(name))
    options = [
        *("--port", "0", "--tls-port", str(made.port), "--tls-auth-clients", "yes"),
        *("--tls-ca-cert-file", str(made.path("ca")), "--tls-cert-file", str(made.path("localhost"))),
        *("--tls-key-file", str(made.path("localhost-key")), "--dir", str(made.folder), "--save", ""),
        *("--user", "default", "off", "--user", "worker", "on", f">{PASSWORD}", "~*", "&*", "+@all"),
    ]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    yield made
    process.kill()
    process.wait()


def link_to(settings: QueueSettings, patience_s: float = 1) -> RedisClient:
    assert settings.address is not None
    return open_client(settings.address.get_secret_value(), retry_timeout_s=patience_s)


def test_the_queue_works_under_tls(server: Server) -> None:
    settings = server.settings(ca=server.path("ca"), cert=server.path("worker"), key=server.path("worker-key"))
    deadline_s = time.monotonic() + 20
    link = None
    while link is None:
        try:
            link = link_to(settings)
        except QueueError:
            assert time.monotonic() < deadline_s
    queue = RedisQueue(link)
    queue.registry.register("door")
    assert [keys.source for keys in queue.registry.sources([0], fresh=True)] == ["door"]
    link.close()


@pytest.mark.parametrize("fault", ["another authority", "no certificate", "no tls"])
def test_a_link_that_is_not_secure_is_none(server: Server, fault: str) -> None:
    ours = {"cert": server.path("worker"), "key": server.path("worker-key")}
    settings = {
        "another authority": server.settings(ca=server.path("stranger"), **ours),
        "no certificate": server.settings(ca=server.path("ca")),
        "no tls": QueueSettings.model_validate({"url": f"redis://localhost:{server.port}/0"}),
    }[fault]
    with pytest.raises(QueueError) as caught:
        link_to(settings)
    assert "w0rd" not in str(caught.value)
