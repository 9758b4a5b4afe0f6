"""Queue and store over TLS with client certificates."""

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
    """Start Debian's redis-server with TLS only, which requires client certificates."""
    server = Server(tmp_path_factory.mktemp("tls"), free_port())
    authority, other_authority = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(server.path("ca"))
    other_authority.cert_pem.write_to_path(server.path("other-ca"))
    for name in ("localhost", "worker"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(server.path(f"{name}-key"))
        issued.cert_chain_pems[0].write_to_path(server.path(name))
    options = [
        *("--port", "0", "--tls-port", str(server.port), "--tls-auth-clients", "yes"),
        *("--tls-ca-cert-file", str(server.path("ca")), "--tls-cert-file", str(server.path("localhost"))),
        *("--tls-key-file", str(server.path("localhost-key")), "--dir", str(server.folder), "--save", ""),
        *("--user", "default", "off", "--user", "worker", "on", f">{PASSWORD}", "~*", "&*", "+@all"),
    ]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    yield server
    process.kill()
    process.wait()


def connect(settings: QueueSettings, retry_timeout_s: float = 1) -> RedisClient:
    assert settings.address is not None
    return open_client(settings.address.get_secret_value(), retry_timeout_s=retry_timeout_s)


def test_queue_works_over_tls(server: Server) -> None:
    settings = server.settings(ca=server.path("ca"), cert=server.path("worker"), key=server.path("worker-key"))
    deadline_s = time.monotonic() + 20
    client = None
    while client is None:
        try:
            client = connect(settings)
        except QueueError:
            assert time.monotonic() < deadline_s
    queue = RedisQueue(client)
    queue.registry.register("door")
    assert [keys.source for keys in queue.registry.sources([0], fresh=True)] == ["door"]
    client.close()


@pytest.mark.parametrize("fault", ["other authority", "no certificate", "no tls"])
def test_insecure_connection_is_refused(server: Server, fault: str) -> None:
    client_certificate = {"cert": server.path("worker"), "key": server.path("worker-key")}
    settings = {
        "other authority": server.settings(ca=server.path("other-ca"), **client_certificate),
        "no certificate": server.settings(ca=server.path("ca")),
        "no tls": QueueSettings.model_validate({"url": f"redis://localhost:{server.port}/0"}),
    }[fault]
    with pytest.raises(QueueError) as caught:
        connect(settings)
    assert "w0rd" not in str(caught.value)
