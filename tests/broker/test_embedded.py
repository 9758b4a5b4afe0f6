from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from fer_stream.broker.embedded import EmbeddedServer, attach
from fer_stream.errors import ConfigError, QueueError
from tests.support.waiting import wait_until


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def test_queue_server_writes_nothing_to_disk(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, "queue", max_memory_mb=64) as server, client_of(server.url) as client:
        assert server.is_owner
        settings = client.config_get("save", "appendonly", "maxmemory", "maxmemory-policy", "port")
        assert settings == {
            "save": "", "appendonly": "no", "maxmemory": str(64 << 20), "maxmemory-policy": "noeviction", "port": "0",
        }  # fmt: skip
        client.set("face", "x" * 1000)
    assert sorted(path.name for path in (tmp_path / "queue").iterdir()) == ["server.lock", "valkey.log"]
    with EmbeddedServer(tmp_path, "queue") as server, client_of(server.url) as client:
        assert client.get("face") is None


def test_store_server_keeps_its_data(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, "store") as server, client_of(server.url) as client:
        client.set("timeline", "kept")
    with EmbeddedServer(tmp_path, "store") as server, client_of(server.url) as client:
        assert client.get("timeline") == "kept"


def test_other_users_have_no_access(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "new", "store"):
        folder = tmp_path / "new" / "store"
        for path in (folder.parent, folder, *folder.iterdir()):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    loose = tmp_path / "loose"
    (loose / "queue").mkdir(parents=True, mode=0o755)
    with EmbeddedServer(loose, "queue"):
        assert stat.S_IMODE((loose / "queue").stat().st_mode) == 0o700
        assert stat.S_IMODE(loose.stat().st_mode) == 0o700


def test_second_object_attaches_to_the_running_server(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, "queue") as first:
        with EmbeddedServer(tmp_path, "queue") as second:
            assert not second.is_owner
            assert second.url == first.url == attach(tmp_path, "queue")
        assert first.is_running
    assert not first.is_running


def test_concurrent_starts_share_one_server(tmp_path: Path) -> None:
    servers: list[EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: servers.append(EmbeddedServer(tmp_path, "queue"))) for _ in range(5)]
    # A server ends with the thread that started it, so it is inspected while all threads are alive.
    owned: list[int] = []
    barrier = threading.Barrier(5, action=lambda: owned.append(sum(server.is_owner for server in servers)))

    def start() -> None:
        servers.append(EmbeddedServer(tmp_path, "queue"))
        barrier.wait(20)

    threads = [threading.Thread(target=start) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers:
        server.close()
    assert owned == [1]


def test_attach_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="start `fer-stream serve` first"):
        attach(tmp_path, "store")


def test_server_starts_despite_the_socket_of_a_killed_one(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path, "queue") as first:
        with client_of(first.url) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        wait_until(lambda: not first.is_running)
        with EmbeddedServer(tmp_path, "queue") as second:
            assert second.is_owner
            assert second.is_running


_PARENT = """
import sys, time
from pathlib import Path
from fer_stream.broker.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), "store")
print("up", flush=True)
time.sleep(60)
"""


def test_server_ends_with_its_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    with client_of(attach(tmp_path, "store")) as client:
        client.set("key", "value")
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def stopped() -> bool:
        try:
            attach(tmp_path, "store")
        except QueueError:
            return True
        return False

    wait_until(stopped)
    with EmbeddedServer(tmp_path, "store") as server, client_of(server.url) as client:
        assert server.is_owner
        assert client.get("key") == "value"


def test_no_second_server_starts_beside_a_suspended_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer(tmp_path, "store") as first, client_of(first.url) as client:
        process = int(client.info("server")["process_id"])
        monkeypatch.setattr("fer_stream.broker.embedded._START_S", 0.5)
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(QueueError, match="does not answer"):
                EmbeddedServer(tmp_path, "store")
        finally:
            os.kill(process, signal.SIGCONT)
        wait_until(lambda: first.is_running)


def test_too_long_socket_path_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shorter path"):
        EmbeddedServer(tmp_path / ("x" * 120), "queue")


def test_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/queue cannot be used: Not a directory"):
        EmbeddedServer(tmp_path / "file", "queue")


def test_failed_start_reports_the_log(tmp_path: Path) -> None:
    (tmp_path / "store" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "store" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(QueueError, match=r"(?s)store does not answer: .*manifest"):
        EmbeddedServer(tmp_path, "store")


def test_path_can_contain_special_characters(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "a b#c?d%20@é", "queue") as server, client_of(server.url) as client:
        assert client.ping()
