from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from prometheus_client import CollectorRegistry

from fer_stream.broker.client import Script, open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.config.live import LiveSettings
from fer_stream.errors import ConfigError, QueueError
from fer_stream.metrics import Metrics
from fer_stream.service.health import Health
from fer_stream.service.process import ServiceContext, connect_queue
from tests.support.waiting import wait_until

CANARY = "canary"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("client"), "queue") as server:
        client = open_client(server.url)
        client.call(
            lambda connection: connection.acl_setuser(
                "worker", enabled=True, passwords=[f"+{CANARY}"], commands=["+ping"]
            )
        )
        client.close()
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
def test_invalid_url_is_rejected_without_showing_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid Redis URL") as caught:
        open_client(url, retry_timeout_s=0)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("cluster", [False, True])
def test_unreachable_server_is_reported_without_showing_the_password(cluster: bool) -> None:
    port = closed_port()
    with pytest.raises(QueueError, match="cannot be reached") as caught:
        open_client(f"redis://user:{CANARY}@127.0.0.1:{port}/0", cluster=cluster, retry_timeout_s=0.4)
    assert f"redis://***@127.0.0.1:{port}" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_stop_ends_the_retries() -> None:
    stop = threading.Event()
    errors: list[QueueError] = []

    def connect() -> None:
        try:
            open_client(f"redis://127.0.0.1:{closed_port()}", retry_timeout_s=3600, stop=stop)
        except QueueError as error:
            errors.append(error)

    connecting = threading.Thread(target=connect)
    connecting.start()
    stop.set()
    connecting.join()
    assert len(errors) == 1


def test_wrong_password_is_not_retried(server: EmbeddedServer) -> None:
    url = server.url.replace("unix://", "unix://worker@") + f"?password=wrong-{CANARY}"
    # A retry would never end.
    with pytest.raises(QueueError, match="check user and password") as caught:
        open_client(url, retry_timeout_s=float("inf"))
    assert CANARY not in str(caught.value)


def test_outage_is_logged_once_with_its_end(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
    canary: str,
) -> None:
    caplog.set_level("INFO")
    port = free_port()
    process = redis_server(tmp_path, port, "--requirepass", canary)
    client = open_client(f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", retry_timeout_s=0)
    process.kill()
    process.wait()
    for _ in range(3):
        with pytest.raises(QueueError):
            client.call(lambda connection: connection.ping())
    assert client.ping_error() is not None
    redis_server(tmp_path, port, "--requirepass", canary)
    assert client.ping_error() is None
    client.close()
    unreachable, reachable = [vars(record) for record in caplog.records]
    assert (unreachable["msg"], reachable["msg"]) == ("redis_unreachable", "redis_reachable")
    assert unreachable["server"] == reachable["server"] == f"redis://***@127.0.0.1:{port}"
    assert reachable["after_s"] >= 0
    assert canary not in str(unreachable)


def test_own_connection_limit_is_not_an_outage(server: EmbeddedServer, caplog: pytest.LogCaptureFixture) -> None:
    client = open_client(f"{server.url}?max_connections=1", retry_timeout_s=0)
    waiting = threading.Thread(target=client.call, args=(lambda connection: connection.blpop("empty", 3),))
    waiting.start()
    with open_client(server.url)._connection() as other:
        wait_until(lambda: other.info("clients")["blocked_clients"] == 1)
    with pytest.raises(QueueError, match=r"all connections of this process are in use.*max_connections"):
        client.call(lambda connection: connection.ping())
    assert client.ping_error() is None
    client._retry_timeout_s = 30.0
    assert client.call(lambda connection: connection.ping()), "waits for a free connection"
    waiting.join()
    client.close()
    assert "redis_unreachable" not in caplog.text


def test_many_threads_can_wait_for_one_server(server: EmbeddedServer) -> None:
    client = open_client(server.url, retry_timeout_s=60)
    threads = [
        threading.Thread(target=client.call, args=(lambda connection: connection.blpop("empty", 60),))
        for _ in range(120)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: client.call(lambda connection: connection.info("clients"))["blocked_clients"] == 120)
    client.call(lambda connection: connection.rpush("empty", *range(120)))
    for thread in threads:
        thread.join()
    client.close()


def test_memory_and_its_limit(server: EmbeddedServer) -> None:
    client = open_client(server.url)
    before, limit = client.memory()
    assert limit == 512 << 20
    client.call(lambda connection: connection.set("large", bytes(1 << 20)))
    used, _ = client.memory()
    assert used - before >= 1 << 20
    client.call(lambda connection: connection.delete("large"))
    client.call(lambda connection: connection.config_set("maxmemory", 0))
    assert client.memory()[1] == 0
    client.call(lambda connection: connection.config_set("maxmemory", limit))
    client.close()


def test_memory_of_a_cluster_is_that_of_its_fullest_node(cluster_url: str) -> None:
    client = open_client(cluster_url, cluster=True)
    client.call(lambda connection: connection.set("large", bytes(1 << 22)))
    assert client.memory()[0] > 1 << 22
    client.call(lambda connection: connection.delete("large"))
    client.close()


def test_denied_command_is_named(server: EmbeddedServer) -> None:
    client = open_client(server.url.replace("unix://", "unix://worker@") + f"?password={CANARY}")
    with pytest.raises(QueueError, match=r"check the permissions of the user.*'get'") as caught:
        client.call(lambda connection: connection.get("key"))
    assert CANARY not in str(caught.value)


def test_unsupported_command_names_the_required_version(server: EmbeddedServer) -> None:
    client = open_client(server.url)
    with pytest.raises(QueueError, match=r"Redis 7\.0 or Valkey 7\.2 or later is required: .*(?i:sequel)"):
        client.call(lambda connection: connection.execute_command("SEQUEL"))  # type: ignore[no-untyped-call]


def test_script_missing_from_the_server_cache_is_sent_again(server: EmbeddedServer) -> None:
    client = open_client(server.url)
    script = Script("#!lua\nreturn tonumber(ARGV[1]) + 1")
    assert client.run(script, [], [1]) == 2
    client.call(lambda connection: connection.script_flush())
    assert client.run(script, [], [2]) == 3


def test_closed_client_reconnects_on_the_next_call(server: EmbeddedServer) -> None:
    client = open_client(server.url)
    client.close()
    assert client.call(lambda connection: connection.ping())


def test_cluster_becomes_ready_again_after_an_outage(
    tmp_path: Path,
    redis_server: Callable[..., subprocess.Popen[bytes]],
    free_port: Callable[[], int],
    canary: str,
) -> None:
    port = free_port()
    options = ("--requirepass", canary, "--cluster-enabled", "yes")
    process = redis_server(tmp_path, port, *options)
    with redis.Redis(port=port, password=canary) as node:
        node.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
        wait_until(lambda: node.cluster("INFO")["cluster_state"] == "ok")
    registry, stop = CollectorRegistry(), threading.Event()
    settings = LiveSettings.model_validate(
        {"queue": {"url": f"redis://:{quote(canary, safe='')}@127.0.0.1:{port}", "cluster": True}}
    )
    health = Health("classify")
    client = ServiceContext(settings, Metrics(registry), health).connect("queue", connect_queue)
    health.heartbeat()
    watching = threading.Thread(target=health.watch, args=(stop,))
    watching.start()
    try:
        wait_until(lambda: health.ready()[0])
        process.kill()
        process.wait()
        wait_until(lambda: not health.ready()[0])
        assert "does not answer" in str(health.ready()[1]["problems"])
        assert canary not in str(health.ready()[1])
        assert registry.get_sample_value("fer_redis_up", {"server": "queue"}) == 0
        redis_server(tmp_path, port, *options)
        wait_until(lambda: health.ready()[0])
        assert registry.get_sample_value("fer_redis_up", {"server": "queue"}) == 1
        assert client.call(lambda connection: connection.set("works", "again"))
    finally:
        stop.set()
        watching.join()
        client.close()


def test_tls_with_the_certificate_of_the_url(tmp_path: Path) -> None:
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
        client = open_client(f"rediss://:{CANARY}@localhost:{port}?ssl_ca_certs={certificate}", retry_timeout_s=10)
        assert client.call(lambda connection: connection.ping())
        client.close()
        with pytest.raises(QueueError, match=r"(?i)certificate verify failed") as caught:
            open_client(f"rediss://:{CANARY}@localhost:{port}", retry_timeout_s=0.2)
        assert CANARY not in str(caught.value)
    finally:
        server.kill()
        server.wait()
