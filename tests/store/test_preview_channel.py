"""Pictures pass through a server: it keeps none."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fer_stream.broker.client import open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.store.protocol import Preview
from fer_stream.store.redis import RedisStore

JPEG = b"\xff\xd8 a face that nobody may find on a disk \xff\xd9"
PICTURE = Preview("door@1", 3, 1280, 720, JPEG)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:  # pytest's own path may be too long for a socket
        yield Path(folder)


def see(store: RedisStore, preview: Preview) -> None:
    """Send a picture until it is seen."""
    deadline_s = time.monotonic() + 10
    while store.preview("door") != preview:
        assert time.monotonic() < deadline_s
        store.set_preview("door", preview)
        time.sleep(0.02)


def test_no_picture_is_kept_in_memory_or_on_disk(folder: Path) -> None:
    with EmbeddedServer(folder, "store") as server:
        link = open_client(server.url)
        store = RedisStore(link)
        store.watch("door")
        see(store, PICTURE)
        with redis.Redis.from_url(server.url) as client:
            assert [key for key in client.scan_iter() if not key.endswith(b":watched")] == []
            client.bgrewriteaof()
        store.close()
        link.close()
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"watched" in data for data in written)
    assert not any(JPEG[4:20] in data for data in written)


def test_what_is_no_picture_is_passed_over(valkey_url: str) -> None:
    link = open_client(valkey_url, retry_timeout_s=2)
    store = RedisStore(link)
    see(store, PICTURE)
    with redis.Redis.from_url(valkey_url) as client:
        for message in (b"", b"{}", b"\xff\xd8", b'{"v":1}\nx', b'{"v":99}\nx'):
            assert client.publish("fer:store:door:preview", message) == 1
            time.sleep(0.02)
    see(store, Preview("door@1", 4, 1280, 720, JPEG))
    store.close()
    link.close()


def test_pictures_come_again_when_the_server_does(folder: Path) -> None:
    server = EmbeddedServer(folder, "store")
    link = open_client(server.url, retry_timeout_s=5)
    store = RedisStore(link)
    see(store, PICTURE)
    server.close()
    with EmbeddedServer(folder, "store"):
        see(store, Preview("door@1", 4, 1280, 720, JPEG))
        store.close()
    link.close()
