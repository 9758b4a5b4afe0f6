"""Record ⇄ bytes, for crops on the queue and messages in the journal.

A record is one block, little-endian, without padding:

    version u8 | kind u8 | body | CRC-32 of all before it, u32

    text  = length u16 | UTF-8
    face  = person_id i64 | frame_index i64 | time_s f64 | captured_at f64 | xyxy 4 × f32 | confidence f64
            | quality score f64 | quality reason u8
    1 FaceCrop     face | pixels 48 × 48 u8             | stream_id text
    2 Prediction   face | probs 7 × f32, NaN for none   | stream_id text | model_id text
    3 FrameHeader    index i64 | time_s f64 | faces u32   | stream_id text
    4 Gap          start_s f64 | end_s f64              | source text    | reason text
    5 EndOfStream  time_s f64 | frames i64 | crops i64  | stream_id text

`VERSION` is written; it and the one before it are read, so that a service can be renewed process by process:
readers (workers, timeline) first, writers (capture) last. Version 1 is the first, so today it is the only one.
Whoever makes version 2 freezes the bodies above as version 1's and chooses between the two by the first byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fer_stream.errors import CodecError
from fer_stream.records import (
    CROP_SIZE_PX,
    LABELS,
    EndOfStream,
    FaceCrop,
    FaceKey,
    FrameHeader,
    Gap,
    Prediction,
    Quality,
    QualityReason,
)

Message = Prediction | FrameHeader | Gap | EndOfStream
"""What capture and the workers tell the timeline."""

Record = FaceCrop | Message

VERSION = 1

_HEAD = struct.Struct("<BB")
_TAIL = struct.Struct("<I")
_LENGTH = struct.Struct("<H")
_FACE = struct.Struct("<qqdd16sddB")
_MARK = struct.Struct("<qdI")
_GAP = struct.Struct("<dd")
_END = struct.Struct("<dqq")
_U8 = np.dtype("u1")
_F32 = np.dtype("<f4")
_PIXELS = CROP_SIZE_PX * CROP_SIZE_PX
_PROBS = len(LABELS)
_NO_PROBS = np.full(_PROBS, np.nan, _F32)
_REASONS: tuple[QualityReason, ...] = get_args(QualityReason)


def encode(record: Record) -> bytes:
    """`record` as bytes: about 2.4 KB for a crop, 130 bytes for a prediction.

    Raises `CodecError` where a shape, a dtype or the range of a number does not fit the format.
    """
    kind, write = _WRITERS[type(record)]
    try:
        block = _HEAD.pack(VERSION, kind) + write(record)
    except (struct.error, UnicodeEncodeError) as error:
        raise CodecError(f"{type(record).__name__} does not fit the format: {error}") from error
    return block + _TAIL.pack(crc32(block))


def decode(data: bytes) -> Record:
    """The record that `data` holds; arrays are read-only views of `data`.

    Raises `CodecError`, and nothing else, for bytes that are no whole record of a version we know.
    """
    if len(data) < _HEAD.size + _TAIL.size:
        raise CodecError(f"Expected a record, received {len(data)} bytes")
    version, kind = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"Expected a record of format version {VERSION}, received version {version}")
    end = len(data) - _TAIL.size
    if crc32(memoryview(data)[:end]) != _TAIL.unpack_from(data, end)[0]:
        raise CodecError(f"The checksum of a record of {len(data)} bytes is wrong: it was cut short or damaged")
    if kind not in _READERS:
        raise CodecError(f"Expected a record of kind 1 to {len(_READERS)}, received kind {kind}")
    body = _Reader(data, end)
    try:
        record = _READERS[kind](body)
        body.finish()
        return record
    except (struct.error, ValueError) as error:
        raise CodecError(f"A record of kind {kind} is malformed: {error}") from error


class _Reader:
    """Walks through the body of a record from front to back."""

    def __init__(self, data: bytes, end: int) -> None:
        self._data = data
        self._at = _HEAD.size
        self._end = end

    def skip(self, size: int) -> int:
        """Where the next `size` bytes begin."""
        at = self._at
        self._at += size
        if self._at > self._end:
            raise ValueError(f"it ends {self._at - self._end} bytes early")
        return at

    def numbers(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack_from(self._data, self.skip(layout.size))

    def array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self._data, dtype, count, self.skip(count * dtype.itemsize))

    def text(self) -> str:
        (size,) = self.numbers(_LENGTH)
        at = self.skip(size)
        return self._data[at : at + size].decode()

    def face(self) -> tuple[int, int, float, float, NDArray[np.float32], float, Quality]:
        track, frame, time_s, captured_at, box, confidence, score, reason = self.numbers(_FACE)
        if reason >= len(_REASONS):
            raise ValueError(f"it has quality reason {reason}")
        xyxy = np.frombuffer(box, _F32)
        return track, frame, time_s, captured_at, xyxy, confidence, Quality(score, _REASONS[reason])

    def finish(self) -> None:
        """Every byte must have had a meaning."""
        if self._at != self._end:
            raise ValueError(f"it has {self._end - self._at} bytes too many")


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


def _array(array: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    if array.shape != shape or array.dtype != dtype:
        raise CodecError(f"Expected {dtype} {shape}, received {array.dtype} {array.shape}")
    return array.tobytes()


def _face(face: FaceCrop | Prediction) -> bytes:
    return _FACE.pack(
        face.key.person_id,
        face.key.frame_index,
        face.time_s,
        face.captured_at,
        _array(face.xyxy, _F32, (4,)),
        face.confidence,
        face.quality.score,
        _REASONS.index(face.quality.reason),
    )


def _write_crop(crop: FaceCrop) -> bytes:
    return _face(crop) + _array(crop.pixels, _U8, (CROP_SIZE_PX, CROP_SIZE_PX)) + _text(crop.key.stream_id)


def _read_crop(body: _Reader) -> FaceCrop:
    track, frame, time_s, captured_at, xyxy, confidence, quality = body.face()
    pixels = body.array(_U8, _PIXELS).reshape(CROP_SIZE_PX, CROP_SIZE_PX)
    key = FaceKey(body.text(), track, frame)
    return FaceCrop(key, time_s, captured_at, xyxy, confidence, quality, pixels)


def _write_prediction(face: Prediction) -> bytes:
    probs = _NO_PROBS if face.probs is None else face.probs
    return _face(face) + _array(probs, _F32, (_PROBS,)) + _text(face.key.stream_id) + _text(face.model_id)


def _read_prediction(body: _Reader) -> Prediction:
    track, frame, time_s, captured_at, xyxy, confidence, quality = body.face()
    said = body.array(_F32, _PROBS)
    probs = None if np.isnan(said).all() else said
    key = FaceKey(body.text(), track, frame)
    return Prediction(key, time_s, captured_at, xyxy, confidence, quality, probs, body.text())


def _write_mark(mark: FrameHeader) -> bytes:
    return _MARK.pack(mark.index, mark.time_s, mark.faces) + _text(mark.stream_id)


def _read_mark(body: _Reader) -> FrameHeader:
    index, time_s, faces = body.numbers(_MARK)
    return FrameHeader(body.text(), index, time_s, faces)


def _write_gap(gap: Gap) -> bytes:
    return _GAP.pack(gap.start_s, gap.end_s) + _text(gap.source) + _text(gap.reason)


def _read_gap(body: _Reader) -> Gap:
    start_s, end_s = body.numbers(_GAP)
    return Gap(body.text(), start_s, end_s, body.text())


def _write_end(end: EndOfStream) -> bytes:
    return _END.pack(end.time_s, end.frames, end.crops) + _text(end.stream_id)


def _read_end(body: _Reader) -> EndOfStream:
    time_s, frames, crops = body.numbers(_END)
    return EndOfStream(body.text(), time_s, frames, crops)


_WRITERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    FaceCrop: (1, _write_crop),
    Prediction: (2, _write_prediction),
    FrameHeader: (3, _write_mark),
    Gap: (4, _write_gap),
    EndOfStream: (5, _write_end),
}

_READERS: dict[int, Callable[[_Reader], Record]] = {
    1: _read_crop,
    2: _read_prediction,
    3: _read_mark,
    4: _read_gap,
    5: _read_end,
}
