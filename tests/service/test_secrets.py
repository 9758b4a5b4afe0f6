"""Passwords of cameras and servers do not occur in logs, metrics, Redis or files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote
from urllib.request import urlopen

import redis

if TYPE_CHECKING:
    from tests.conftest import Camera
    from tests.service.conftest import Service


def contents(client: redis.Redis) -> Iterator[bytes]:
    """Yield every key of a database and its value."""
    for key in client.scan_iter():
        yield key
        readers: dict[bytes, Callable[[bytes], object]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"set": client.smembers,
            b"zset": lambda name: client.zrange(name, 0, -1, withscores=True),
            b"stream": client.xrange,
        }
        yield repr(readers[cast(bytes, client.type(key))](key)).encode("latin-1", "backslashreplace")


def disconnect_reason(live: Service, name: str) -> str | None:
    state = live.store.state(name)
    return state.reason if state else None


def pages(port: int, processes: int) -> list[bytes]:
    return [urlopen(f"http://127.0.0.1:{port + number}/metrics").read() for number in range(processes)]


def test_passwords_do_not_leak(
    service: Callable[..., Service],
    rtsp_camera: Callable[..., Camera],
    camera_clip: Path,
    redis_url: str,
    canary: str,
    free_port: Callable[[], int],
) -> None:
    right = rtsp_camera((camera_clip,), "--user", "viewer", "--password", canary).start()
    wrong = rtsp_camera((camera_clip,), "--user", "viewer", "--password", "another").start()
    absent = rtsp_camera((camera_clip,))
    user = f"viewer:{quote(canary, safe='')}@"
    timeouts: dict[str, Any] = {
        "open_timeout_s": 2,
        "stall_timeout_s": 1,
        "reconnect_min_s": 0.1,
        "reconnect_auth_s": 1,
    }
    sources = {
        name: {"url": camera.url(user), **timeouts} for name, camera in {"wrong": wrong, "absent": absent}.items()
    }
    sources["right"] = {"url": right.url(), "username": "viewer", "password": canary, **timeouts}
    with redis.Redis.from_url(f"{redis_url}/0") as queue, redis.Redis.from_url(f"{redis_url}/1") as store:
        queue.flushall()
        port = free_port()
        live = service(
            sources=sources,
            queue={"url": f"{redis_url}/0"},
            store={"url": f"{redis_url}/1"},
            metrics={"port": port},
            log={"level": "debug"},
        )
        live.serve()
        live.wait(lambda: live.stream_id("right"))
        live.wait(
            lambda: (
                disconnect_reason(live, "wrong") == "unauthorized" and disconnect_reason(live, "absent") == "refused"
            )
        )
        seen = pages(port, 3)
        right.kill()
        live.wait(lambda: live.logged("camera_disconnected", source="right"))
        stored = [*contents(queue), *contents(store)]
        assert live.stop() == [0]
        stored += [*contents(queue), *contents(store)]
    written = [path for path in live.files.rglob("*") if path.is_file()]
    assert any(b"fer_camera_up" in page for page in seen)
    assert (len(stored) > 20, len(written) > 0) == (True, True)
    print(f"searched {sum(map(len, (*seen, *stored))):,} bytes of metrics, keys and values, and all logs and files")
    assert not live.leaks(canary, *seen, *stored)
