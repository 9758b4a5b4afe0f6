"""Codec of records: crops on the queue and messages in the journal.

A record is one block, little-endian, without padding:

    version u8 | kind u8 | body | CRC-32 of all preceding bytes, u32

    text  = length u16 | UTF-8
    face  = person_id i64 | frame_index i64 | time_s f64 | captured_at f64 | xyxy 4 × f32 | confidence f64
            | quality score f64 | quality reason u8 | stream_id text
    1 FaceCrop     face | pixels 48 × 48 u8
    2 Prediction   face | probs 7 × f32                 | model_id text
    3 FrameHeader  index i64 | time_s f64 | faces u32   | stream_id text
    4 Gap          start_s f64 | end_s f64              | stream_id text | reason text
    5 EndOfStream  time_s f64 | frames i64 | crops i64  | stream_id text
    6 Face         face

`VERSION` is written; it and the previous version are read, so that a service can be upgraded process by process:
readers (workers, timeline) first, writers (capture) last. Version 1 is the first and so far the only one. A version 2
must keep the bodies above for version 1 and select by the first byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, get_args
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fer_stream.broker.protocols import JournalMessage
from fer_stream.errors import CodecError
from fer_stream.records import (
    CROP_SIZE_PX,
    LABELS,
    EndOfStream,
    Face,
    FaceCrop,
    FaceKey,
    FrameHeader,
    Gap,
    Prediction,
    Quality,
    QualityReason,
)

Record = FaceCrop | JournalMessage

VERSION = 1

_HEAD = struct.Struct("<BB")
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<H")
_FACE = struct.Struct("<qqdd16sddB")
_HEADER = struct.Struct("<qdI")
_GAP = struct.Struct("<dd")
_END = struct.Struct("<dqq")
_U8 = np.dtype("u1")
_F32 = np.dtype("<f4")
_PIXELS = CROP_SIZE_PX * CROP_SIZE_PX
_PROBS = len(LABELS)
_REASONS: tuple[QualityReason, ...] = get_args(QualityReason)


def encode(record: Record) -> bytes:
    """Return `record` as bytes: about 2.4 KB for a crop, 130 bytes for a prediction.

    Raises `CodecError` if a shape, a dtype or the range of a number does not fit the format.
    """
    kind, write = _WRITERS[type(record)]
    try:
        block = _HEAD.pack(VERSION, kind) + write(record)
    except (struct.error, UnicodeEncodeError) as error:
        raise CodecError(f"{type(record).__name__} does not fit the format: {error}") from error
    return block + _CHECKSUM.pack(crc32(block))


def decode(data: bytes) -> Record:
    """Return the record encoded in `data`; its arrays are read-only views of `data`.

    Raises `CodecError`, and no other exception, if `data` is not a complete record of a supported version.
    """
    if len(data) < _HEAD.size + _CHECKSUM.size:
        raise CodecError(f"Expected a record, received {len(data)} bytes")
    version, kind = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CodecError(f"Expected a record of format version {VERSION}, received version {version}")
    end = len(data) - _CHECKSUM.size
    if crc32(memoryview(data)[:end]) != _CHECKSUM.unpack_from(data, end)[0]:
        raise CodecError(f"Wrong checksum of a record of {len(data)} bytes: it is truncated or corrupt")
    if kind not in _READERS:
        raise CodecError(f"Expected a record of kind 1 to {len(_READERS)}, received kind {kind}")
    body = _BodyReader(data, end)
    try:
        record = _READERS[kind](body)
        body.finish()
        return record
    except (struct.error, ValueError) as error:
        raise CodecError(f"Malformed record of kind {kind}: {error}") from error


class _BodyReader:
    """Sequential reader of the body of a record."""

    def __init__(self, data: bytes, end: int) -> None:
        self._data = data
        self._offset = _HEAD.size
        self._end = end

    def skip(self, size: int) -> int:
        """Advance by `size` bytes and return the offset of the first of them."""
        offset = self._offset
        self._offset += size
        if self._offset > self._end:
            raise ValueError(f"it ends {self._offset - self._end} bytes early")
        return offset

    def numbers(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack_from(self._data, self.skip(layout.size))

    def array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self._data, dtype, count, self.skip(count * dtype.itemsize))

    def text(self) -> str:
        (size,) = self.numbers(_LENGTH)
        offset = self.skip(size)
        return self._data[offset : offset + size].decode()

    def finish(self) -> None:
        """Raise `ValueError` if bytes are left."""
        if self._offset != self._end:
            raise ValueError(f"it has {self._end - self._offset} extra bytes")


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


def _array(array: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    if array.shape != shape or array.dtype != dtype:
        raise CodecError(f"Expected {dtype} {shape}, received {array.dtype} {array.shape}")
    return array.tobytes()


def _write_face(face: Face) -> bytes:
    numbers = _FACE.pack(
        face.key.person_id,
        face.key.frame_index,
        face.time_s,
        face.captured_at,
        _array(face.xyxy, _F32, (4,)),
        face.confidence,
        face.quality.score,
        _REASONS.index(face.quality.reason),
    )
    return numbers + _text(face.key.stream_id)


def _read_face(body: _BodyReader) -> Face:
    person_id, frame_index, time_s, captured_at, box, confidence, score, reason = body.numbers(_FACE)
    if reason >= len(_REASONS):
        raise ValueError(f"its quality reason is {reason}")
    key = FaceKey(body.text(), person_id, frame_index)
    quality = Quality(score, _REASONS[reason])
    return Face(key, time_s, captured_at, np.frombuffer(box, _F32), confidence, quality)


def _write_crop(crop: FaceCrop) -> bytes:
    return _write_face(crop.face) + _array(crop.pixels, _U8, (CROP_SIZE_PX, CROP_SIZE_PX))


def _read_crop(body: _BodyReader) -> FaceCrop:
    face = _read_face(body)
    return FaceCrop(face, body.array(_U8, _PIXELS).reshape(CROP_SIZE_PX, CROP_SIZE_PX))


def _write_prediction(prediction: Prediction) -> bytes:
    probs = _array(prediction.probs, _F32, (_PROBS,))
    return _write_face(prediction.face) + probs + _text(prediction.model_id)


def _read_prediction(body: _BodyReader) -> Prediction:
    face = _read_face(body)
    return Prediction(face, body.array(_F32, _PROBS), body.text())


def _write_header(header: FrameHeader) -> bytes:
    return _HEADER.pack(header.index, header.time_s, header.faces) + _text(header.stream_id)


def _read_header(body: _BodyReader) -> FrameHeader:
    index, time_s, faces = body.numbers(_HEADER)
    return FrameHeader(body.text(), index, time_s, faces)


def _write_gap(gap: Gap) -> bytes:
    return _GAP.pack(gap.start_s, gap.end_s) + _text(gap.stream_id) + _text(gap.reason)


def _read_gap(body: _BodyReader) -> Gap:
    start_s, end_s = body.numbers(_GAP)
    return Gap(body.text(), start_s, end_s, body.text())


def _write_end(end: EndOfStream) -> bytes:
    return _END.pack(end.time_s, end.frames, end.crops) + _text(end.stream_id)


def _read_end(body: _BodyReader) -> EndOfStream:
    time_s, frames, crops = body.numbers(_END)
    return EndOfStream(body.text(), time_s, frames, crops)


_WRITERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    FaceCrop: (1, _write_crop),
    Prediction: (2, _write_prediction),
    FrameHeader: (3, _write_header),
    Gap: (4, _write_gap),
    EndOfStream: (5, _write_end),
    Face: (6, _write_face),
}

_READERS: dict[int, Callable[[_BodyReader], Record]] = {
    1: _read_crop,
    2: _read_prediction,
    3: _read_header,
    4: _read_gap,
    5: _read_end,
    6: _read_face,
}
