"""What is fuzzed, and what must hold whatever the bytes are.

A target takes bytes and raises where something does not hold. `CodecError`, `ConfigError`, `ModelError` and
`SourceError` are what the readers promise; every other exception is a finding, and so are a crash of the process,
more than 2 GiB of memory and more than 20 s.
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
from fer_stream.store import schemas as payload

SECRET = "q7Zx0-canary"
"""Stands in the environment and in the secret file of `config`, and must stand in no complaint."""

WEIGHTS = "emotion.tflite"

Check = Callable[[bytes], None]

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """`prepare` is given an empty folder and returns the check; `tokens` are words that inputs are made of."""

    prepare: Callable[[Path], Check]
    seeds: Callable[[], Iterable[bytes]]
    max_len: int
    tokens: tuple[str, ...] = ()


def _codec(_: Path) -> Check:
    def check(data: bytes) -> None:
        _decoded(data)
        # No fuzzer guesses a checksum: the same bytes once more, as the body of a record with a right one.
        if data:
            block = bytes([VERSION, 1 + data[0] % 6]) + data[1:]
            _decoded(block + struct.pack("<I", crc32(block)))

    return check


def _decoded(data: bytes) -> None:
    try:
        record = decode(data)
    except CodecError:
        return
    assert encode(record) == data, "a record is not written as it was read"


def _payload(_: Path) -> Check:
    def check(data: bytes) -> None:
        _read_and_write(
            data,
            lambda text: payload.frame_of(payload.parse_frame(text)),
            lambda frame: payload.to_json(payload.frame_document(frame)),
        )
        _read_and_write(
            data,
            lambda text: payload.segment_of(payload.parse_segment(text)),
            lambda segment: payload.to_json(payload.stored_segment(segment)),
        )
        _read_and_write(
            data,
            lambda text: payload.gap_of(payload.parse_gap(text)),
            lambda gap: payload.to_json(payload.stored_gap(gap)),
        )

    return check


def _read_and_write(data: bytes, read: Callable[[str | bytes], T], write: Callable[[T], str]) -> None:
    try:
        text = write(read(data))
    except CodecError:
        return
    assert write(read(text)) == text, "a second trip changes something"


def _card(folder: Path) -> Check:
    (folder / WEIGHTS).write_bytes(b"weights")

    def check(data: bytes) -> None:
        (folder / CARD_NAME).write_bytes(data)
        try:
            read_card(folder, WEIGHTS)
        except ModelError as error:
            said = str(error)
            assert CARD_NAME in said, f"{said} names no file"

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
            said = str(error)
            assert said.startswith("my.yaml"), f"{said} names no file"
            assert SECRET not in said, f"{said} holds a secret"

    return check


def _video(folder: Path) -> Check:
    path = folder / "video"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _watch(path, lambda: VideoFileSource(path, name="a", stream_start_ms=1, threads=1))

    return check


def _image(folder: Path) -> Check:
    path = folder / "image"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        _watch(path, lambda: ImageSource(path, name="a", stream_start_ms=1))

    return check


def _watch(path: Path, opened: Callable[[], FrameSource]) -> None:
    try:
        source = opened()
    except SourceError as error:
        said = str(error)
        assert str(path) in said, f"{said} names no file"
        return
    before_s = 0.0
    for frame in source.frames():
        assert frame.image.size, "a picture without a pixel"
        assert frame.image.shape[2:] == (3,), frame.image.shape
        assert frame.image.dtype == np.uint8, frame.image.dtype
        assert before_s <= frame.time_s < math.inf, f"{frame.time_s} s after {before_s} s"
        before_s = frame.time_s
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
    "payload": Target(_payload, seeds.documents, 2048, _JSON),
    "card": Target(_card, _card_seeds, 2048, _JSON),
    "config": Target(_config, seeds.settings, 4096, _YAML),
    "video": Target(_video, seeds.videos, 16_384),
    "image": Target(_image, seeds.images, 8192),
}
