"""Fuzzed parsers and their requirements for any input.

A target takes bytes and raises an exception if a requirement is violated. `CodecError`, `ConfigError`, `ModelError`
and `SourceError` are the documented errors of the parsers; every other exception is a finding, and so are a crash of
the process, more than 2 GiB of memory and more than 20 s.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from zlib import crc32

import numpy as np

from benchmarks.fuzz import seeds
from fer_stream.broker.codec import VERSION, decode, encode
from fer_stream.capture.file import VideoFileSource
from fer_stream.capture.image import ImageSource
from fer_stream.capture.source import FrameSource
from fer_stream.classify.model_card import CARD_NAME, read_card
from fer_stream.config.live import LiveSettings
from fer_stream.config.loader import parse
from fer_stream.config.settings import FileSettings
from fer_stream.errors import CodecError, ConfigError, ModelError, SourceError
from fer_stream.store import schemas

SECRET = "q7Zx0-canary"
"""Contained in the environment and in the secret file of `config`; must not appear in any error message."""

WEIGHTS = "emotion.tflite"

Check = Callable[[bytes], None]

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """A fuzzed parser. `prepare` takes an empty folder and returns the check; `tokens` are inserted into inputs."""

    prepare: Callable[[Path], Check]
    seeds: Callable[[], Iterable[bytes]]
    max_len: int
    tokens: tuple[str, ...] = ()


def _codec(_: Path) -> Check:
    def check(data: bytes) -> None:
        _check_record(data)
        # Random inputs never have a valid checksum: check the same bytes as the body of a record that has one.
        if data:
            block = bytes([VERSION, 1 + data[0] % 6]) + data[1:]
            _check_record(block + struct.pack("<I", crc32(block)))

    return check


def _check_record(data: bytes) -> None:
    try:
        record = decode(data)
    except CodecError:
        return
    assert encode(record) == data, "encoding the decoded record gives other bytes"


def _schemas(_: Path) -> Check:
    def check(data: bytes) -> None:
        _check_round_trip(
            data,
            lambda text: schemas.frame_of(schemas.parse_frame(text)),
            lambda frame: schemas.to_json(schemas.frame_document(frame)),
        )
        _check_round_trip(
            data,
            lambda text: schemas.segment_of(schemas.parse_segment(text)),
            lambda segment: schemas.to_json(schemas.stored_segment(segment)),
        )
        _check_round_trip(
            data,
            lambda text: schemas.gap_of(schemas.parse_gap(text)),
            lambda gap: schemas.to_json(schemas.stored_gap(gap)),
        )

    return check


def _check_round_trip(data: bytes, read: Callable[[str | bytes], T], write: Callable[[T], str]) -> None:
    try:
        text = write(read(data))
    except CodecError:
        return
    assert write(read(text)) == text, "a second round trip changes the document"


def _card(folder: Path) -> Check:
    (folder / WEIGHTS).write_bytes(b"weights")

    def check(data: bytes) -> None:
        (folder / CARD_NAME).write_bytes(data)
        try:
            read_card(folder, WEIGHTS)
        except ModelError as error:
            message = str(error)
            assert CARD_NAME in message, f"no file name in: {message}"

    return check


def _config(folder: Path) -> Check:
    (folder / "secret").write_text(SECRET)
    environ = {"SECRET": SECRET}

    def check(data: bytes) -> None:
        model = FileSettings if data[:1] == b"F" else LiveSettings
        try:
            text = data[1:].decode()
        except UnicodeDecodeError:
            return
        try:
            parse(text, model, name="my.yaml", folder=folder, environ=environ)
        except ConfigError as error:
            message = str(error)
            assert message.startswith("my.yaml"), f"no file name in: {message}"
            assert SECRET not in message, f"secret in: {message}"

    return check


def _video(folder: Path) -> Check:
    path = folder / "video"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _read_frames(path, lambda: VideoFileSource(path, name="a", stream_start_ms=1, threads=1))

    return check


def _image(folder: Path) -> Check:
    path = folder / "image"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _read_frames(path, lambda: ImageSource(path, name="a", stream_start_ms=1))

    return check


def _read_frames(path: Path, open_source: Callable[[], FrameSource]) -> None:
    try:
        source = open_source()
    except SourceError as error:
        message = str(error)
        assert str(path) in message, f"no file name in: {message}"
        return
    previous_s = 0.0
    for frame in source.frames():
        assert frame.image.size, "empty frame"
        assert frame.image.shape[2:] == (3,), frame.image.shape
        assert frame.image.dtype == np.uint8, frame.image.dtype
        assert previous_s <= frame.time_s < math.inf, f"time {frame.time_s} s follows {previous_s} s"
        previous_s = frame.time_s
    assert source.decode_errors.packets >= 0
    source.close()


def _card_seeds() -> Iterable[bytes]:
    return seeds.card(hashlib.sha256(b"weights").hexdigest(), WEIGHTS)


_JSON = ("null", "true", "NaN", "Infinity", "-1", "1e999", "[]", "{}", '""', "\\ud800", '"v":1', "\\u0000")
_YAML = (
    "${SECRET}", "${", "$${", "!!int", "!!bool", "!!float", "!!binary", "!!timestamp", "!!set", "!!omap", "<<: *a",
    "&a ", "*a", "? ", "- ", "|", ">-", "\n---\n", "%YAML 1.1\n", "2001-01-01", "0x1", "0b1", ".nan", "1:30", "~",
    "secret", "password_file: secret", "sources:", "url:", "queue:", "store:", "detector:", "rtsp://", "redis://:",
)  # fmt: skip

TARGETS = {
    "codec": Target(_codec, seeds.codec, 4096),
    "schemas": Target(_schemas, seeds.stored_documents, 2048, _JSON),
    "card": Target(_card, _card_seeds, 2048, _JSON),
    "config": Target(_config, seeds.settings, 4096, _YAML),
    "video": Target(_video, seeds.videos, 16_384),
    "image": Target(_image, seeds.images, 8192),
}
