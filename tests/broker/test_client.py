from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from prometheus_client import CollectorRegistry

from fer_stream.broker.client import Script, open_link
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.config import LiveSettings
from fer_stream.errors import ConfigError, QueueError
from fer_stream.metrics import Metrics
from fer_stream.service.connections import open_queue_link
from fer_stream.service.health import Health
from fer_stream.service.process import Process
from tests.support.waiting import until

CANARY = "canary"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("link"), "queue") as server:
        link = open_link(server.url)
        link.call(
            lambda client: client.acl_setuser("worker", enabled=True, passwords=[f"+{CANARY}"], commands=["+ping"])
        )
        link.close()
        yield server


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{CANARY}/slash@host:6379",
        f"redis://user:{CANARY}#hash@host",
        f"http://user:{CANARY}@host",
        f"redis://user:{CANARY}@host:port",
        f"redis://user:{CANARY}@host?bogus=1",
        f"{CANARY}@host",
    ],
)
def test_a_wrong_url_is_a_config_error_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match="is no Redis URL") as caught:
        open_link(url, patience_s=0)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("cluster", [False, True])
def test_nobody_there_is_told_after_the_patience_and_without_the_password(cluster: bool) -> None:
    port = closed_port()
    started = time.monotonic()
    with pytest.raises(QueueError, match="cannot be reached") as caught:
        open_link(f"redis://user:{CANARY}@127.0.0.1:{port}/0", cluster=cluster, patience_s=0.4)
    assert 0.4 <= time.monotonic() - started < 5
    assert f"redis://***@127.0.0.1:{port}" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_stop_ends_the_patience() -> None:
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    with pytest.raises(QueueError):
        open_link(f"redis://127.0.0.1:{closed_port()}", patience_s=60, stop=stop)
    assert time.monotonic() - started < 5


def test_a_wrong_password_is_told_at_once(server: EmbeddedServer) -> None:
    url = server.url.replace("unix://", "unix://worker@") + f"?password=wrong-{CANARY}"
    started = time.monotonic()
    with pytest.raises(QueueError, match="check user and password") as caught:
        open_link(url, patience_s=30)
    assert time.monotonic() - started < 5
    assert CANARY not in str(caught.value)


def test_a_user_without_rights_is_told_which_command(server: EmbeddedServer) -> None:
    link = open_link(server.url.replace("unix://", "unix://worker@") + f"?password={CANARY}")
    with pytest.raises(QueueError, match=r"check the rights of the user.*'get'") as caught:
        link.call(lambda client: client.get("key"))
    assert CANARY not in str(caught.value)


def test_what_a_server_cannot_do_is_told_with_the_cure(server: EmbeddedServer) -> None:
    link = open_link(server.url)
    with pytest.raises(QueueError, match=r"Redis 7\.0 or Valkey 7\.2 is needed: .*(?i:sequel)"):
        link.call(lambda client: client.execute_command("SEQUEL"))  # type: ignore[no-untyped-call]


def test_a_script_that_the_server_forgot_is_sent_again(server: EmbeddedServer) -> None:
    link = open_link(server.url)
    script = Script("#!lua\nreturn tonumber(ARGV[1]) + 1")
    assert link.run(script, [], [1]) == 2
    link.call(lambda client: client.script_flush())
    assert link.run(script, [], [2]) == 3


def test_it_connects_again_after_it_was_closed(server: EmbeddedServer) -> None:
    link = open_link(server.url)
    link.close()
    assert link.call(lambda client: client.ping())


def test_a_cluster_that_was_away_is_ready_again_when_it_is_back(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    canary: str,
) -> None:
    port = free_port()
    options = ("--requirepass", canary, "--cluster-enabled", "yes")
    process = redis_server(tmp_path, port, *options)
    with redis.Redis(port=port, password=canary) as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
        until(lambda: client.cluster("INFO")["cluster_state"] == "ok")
    registry, stop = CollectorRegistry(), threading.Event()
    settings = LiveSettings.model_validate(
        {"queue": {"url": f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", "cluster": True}}
    )
    health = Health("classify")
    link = Process(settings, Metrics(registry), health).link_to("queue", open_queue_link)
    health.beat()
    watching = threading.Thread(target=health.watch, args=(stop,))
    watching.start()
    try:
        until(lambda: health.ready()[0])
        process.kill()
        process.wait()
        until(lambda: not health.ready()[0])
        assert "does not answer" in str(health.ready()[1]["missing"])
        assert canary not in str(health.ready()[1])
        assert registry.get_sample_value("fer_redis_up", {"server": "queue"}) == 0
        redis_server(tmp_path, port, *options)
        until(lambda: health.ready()[0])
        assert registry.get_sample_value("fer_redis_up", {"server": "queue"}) == 1
        assert link.call(lambda client: client.set("works", "again"))
    finally:
        stop.set()
        watching.join()
        link.close()


def test_tls_with_a_certificate_that_is_named_in_the_url(tmp_path: Path) -> None:
    redis_server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if redis_server is None or openssl is None:
        pytest.skip("needs redis-server and openssl: apt-get install redis-server openssl")
    certificate, key, port = tmp_path / "ca.pem", tmp_path / "key.pem", closed_port()
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    server = subprocess.Popen(
        [redis_server, "--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key,
         "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no", "--save", "", "--dir", tmp_path,
         "--requirepass", CANARY],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        link = open_link(f"rediss://:{CANARY}@localhost:{port}?ssl_ca_certs={certificate}", patience_s=10)
        assert link.call(lambda client: client.ping())
        link.close()
        with pytest.raises(QueueError, match=r"(?i)certificate verify failed") as caught:
            open_link(f"rediss://:{CANARY}@localhost:{port}", patience_s=0.2)
        assert CANARY not in str(caught.value)
    finally:
        server.kill()
        server.wait()
