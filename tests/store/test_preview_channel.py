"""Previews are transferred by a server that does not store them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from fer_stream.broker.client import open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.store.protocol import Preview
from fer_stream.store.redis import RedisStore
from tests.support.waiting import wait_until

JPEG = b"\xff\xd8 a face that must not be on a disk \xff\xd9"
PREVIEW = Preview("door@1", 3, 1280, 720, JPEG)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:  # pytest's path can be too long for a socket
        yield Path(folder)


def send_until_received(store: RedisStore, preview: Preview) -> None:
    """Send a preview until it is received: a listener misses those sent before it has subscribed."""

    def received() -> bool:
        store.set_preview("door", preview)
        return store.preview("door") == preview

    wait_until(received)


def test_previews_are_neither_in_memory_nor_on_disk(folder: Path) -> None:
    with EmbeddedServer(folder, "store") as server:
        link = open_client(server.url)
        store = RedisStore(link)
        store.request_previews("door")
        send_until_received(store, PREVIEW)
        with redis.Redis.from_url(server.url) as client:
            assert [key for key in client.scan_iter() if not key.endswith(b":preview_request")] == []
            client.bgrewriteaof()
        store.close()
        link.close()
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert any(b"preview_request" in data for data in written)
    assert not any(JPEG[4:20] in data for data in written)


def test_invalid_messages_are_skipped(valkey_url: str) -> None:
    link = open_client(valkey_url, retry_timeout_s=2)
    store = RedisStore(link)
    send_until_received(store, PREVIEW)
    with redis.Redis.from_url(valkey_url) as client:
        for message in (b"", b"{}", b"\xff\xd8", b'{"v":1}\nx', b'{"v":99}\nx'):
            assert client.publish("fer:store:door:preview", message) == 1
    send_until_received(store, Preview("door@1", 4, 1280, 720, JPEG))
    store.close()
    link.close()


def test_previews_resume_after_a_server_restart(folder: Path) -> None:
    server = EmbeddedServer(folder, "store")
    link = open_client(server.url, retry_timeout_s=5)
    store = RedisStore(link)
    send_until_received(store, PREVIEW)
    server.close()
    with EmbeddedServer(folder, "store"):
        send_until_received(store, Preview("door@1", 4, 1280, 720, JPEG))
        store.close()
    link.close()
