"""Streams of RTMP, SRT and UDP senders, which are played by the ffmpeg program."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.capture.live.conftest import Reader

PASSPHRASE = "canary-7f3a91-passphrase"
MULTICAST = "239.255.43.21"


class Sender:
    """Plays a raw H.264 clip in a loop and in real time to an address."""

    def __init__(self, clip: Path, container: str, address: str, *options: str) -> None:
        self._process = subprocess.Popen(
            ["ffmpeg", "-nostdin", "-loglevel", "fatal", "-re", "-stream_loop", "-1", "-r", "15", "-i", str(clip),
             "-c", "copy", *options, "-f", container, address]
        )  # fmt: skip

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def play(wide: Path) -> Iterator[Callable[..., Sender]]:
    senders: list[Sender] = []

    def make(*arguments: str) -> Sender:
        senders.append(Sender(wide, *arguments))
        return senders[-1]

    yield make
    for sender in senders:
        sender.kill()


@pytest.fixture
def port() -> int:
    """A free port of both TCP and UDP."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def is_live(reader: Reader) -> None:
    """Check that frames arrive in order, in real time and in the size of the clip."""
    reader.wait_for_frames(20)
    frames = reader.frames
    assert frames[0].image.shape == (180, 320, 3)
    assert all(first.time_s <= second.time_s for first, second in pairwise(frames))


def test_rtmp(play: Callable[..., Sender], port: int, read: Callable[..., Reader]) -> None:
    address = f"rtmp://127.0.0.1:{port}/live/cam"
    sender = play("flv", address, "-listen", "1")
    reader = read(address)
    is_live(reader)
    sender.kill()
    reader.wait(lambda: not reader.source.status.up)
    assert reader.source.status.reason in ("ended", "network", "refused")


def test_udp(play: Callable[..., Sender], port: int, read: Callable[..., Reader]) -> None:
    sender = play("mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    reader = read(f"udp://127.0.0.1:{port}")
    is_live(reader)
    sender.kill()
    reader.wait_for_reason("stalled")
    play("mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316")
    reader.wait(lambda: reader.source.status.up)
    reader.wait(lambda: len(reader.gaps) == 1)


def test_udp_without_a_sender(port: int, read: Callable[..., Reader]) -> None:
    reader = read(f"udp://127.0.0.1:{port}", open_timeout_s=0.3)
    reader.wait_for_reason("timeout")
    assert "check that the sender uses this address and port" in reader.source.status.text


@pytest.mark.parametrize("at", ["", "@"])
def test_multicast(at: str, play: Callable[..., Sender], port: int, read: Callable[..., Reader]) -> None:
    """`localaddr` selects the network interface of the group: here the loopback."""
    play("mpegts", f"udp://{MULTICAST}:{port}?pkt_size=1316&ttl=0&localaddr=127.0.0.1")
    readers = [read(f"udp://{at}{MULTICAST}:{port}?localaddr=127.0.0.1") for _ in range(2)]
    for reader in readers:
        is_live(reader)


@pytest.mark.parametrize("encrypted", [False, True])
def test_srt(encrypted: bool, play: Callable[..., Sender], port: int, read: Callable[..., Reader]) -> None:
    listener = f"srt://127.0.0.1:{port}?mode=listener" + (f"&passphrase={PASSPHRASE}" if encrypted else "")
    sender = play("mpegts", listener)
    login = {"password": PASSPHRASE} if encrypted else {}
    reader = read(f"srt://127.0.0.1:{port}?latency=200&streamid=cam", **login)
    is_live(reader)
    sender.kill()
    reader.wait(lambda: not reader.source.status.up)
    play("mpegts", listener)
    reader.wait(lambda: reader.source.status.up)


def test_srt_passphrase_in_the_url(play: Callable[..., Sender], port: int, read: Callable[..., Reader]) -> None:
    play("mpegts", f"srt://127.0.0.1:{port}?mode=listener&passphrase={PASSPHRASE}")
    is_live(read(f"srt://localhost:{port}?passphrase={PASSPHRASE}"))


@pytest.mark.parametrize(
    ("server", "password", "text"),
    [
        (PASSPHRASE, f"{PASSPHRASE}-wrong", "rejects the passphrase: check password"),
        (PASSPHRASE, "", "only one side has a passphrase"), ("", PASSPHRASE, "only one side has a passphrase"),
        ("", "canary-7f", "must have 10 to 79 characters"),
    ],
)  # fmt: skip
def test_srt_passphrases(
    server: str, password: str, text: str, play: Callable[..., Sender], port: int, read: Callable[..., Reader]
) -> None:
    play("mpegts", f"srt://127.0.0.1:{port}?mode=listener" + (f"&passphrase={server}" if server else ""))
    reader = read(f"srt://127.0.0.1:{port}", password=password, reconnect_auth_s=0.1)
    reader.wait_for_reason("unauthorized")
    assert text in reader.source.status.text


@pytest.mark.parametrize(
    ("url", "reason", "text"),
    [
        ("srt://127.0.0.1:{}", "timeout", "check address, port"),
        ("srt://camera.invalid:{}", "unknown_host", "use the IP address"),
        ("srt://127.0.0.1:{}?latency=long", "network", "streamid or latency"),
    ],
)
def test_srt_faults(url: str, reason: str, text: str, port: int, read: Callable[..., Reader]) -> None:
    reader = read(url.format(port), open_timeout_s=0.5)
    reader.wait_for_reason(reason)
    assert text in reader.source.status.text
