from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from typing import get_args
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fer_stream.broker.codec import VERSION, Record, decode, encode
from fer_stream.errors import CodecError
from fer_stream.records import (
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

numbers = st.floats(width=64)
int64s = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=80).filter(lambda text: text.isascii() or text.isprintable())
keys = st.builds(FaceKey, texts, int64s, int64s)
qualities = st.builds(Quality, numbers, st.sampled_from(get_args(QualityReason)))
boxes = hnp.arrays(np.float32, 4, elements=st.floats(width=32))

faces = st.builds(Face, keys, numbers, numbers, boxes, numbers, qualities)
crops = st.builds(
    FaceCrop, faces,
    st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)),
)  # fmt: skip
predictions = st.builds(Prediction, faces, hnp.arrays(np.float32, 7, elements=st.floats(width=32)), texts)
headers = st.builds(FrameHeader, texts, int64s, numbers, st.integers(0, 2**32 - 1))
gaps = st.builds(Gap, texts, numbers, numbers, texts)
ends = st.builds(EndOfStream, texts, numbers, int64s, int64s)
records = st.one_of(crops, predictions, faces, headers, gaps, ends)


def same(one: object, other: object) -> bool:
    """Compare bit by bit, so that NaN equals NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if type(one) is type(other) and hasattr(one, "__slots__") and not isinstance(one, str | int):
        return all(same(getattr(one, name), getattr(other, name)) for name in one.__slots__)
    return type(one) is type(other) and one == other


@given(records)
def test_decoding_inverts_encoding(record: Record) -> None:
    assert same(decode(encode(record)), record)


@given(st.binary(max_size=3000))
def test_random_bytes_raise_only_codec_errors(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


@given(st.binary(max_size=300), st.integers(0, 255))
def test_random_body_with_valid_checksum_raises_only_codec_errors(body: bytes, kind: int) -> None:
    block = bytes([VERSION, kind]) + body
    whole = block + struct.pack("<I", crc32(block))
    with suppress(CodecError):
        assert encode(decode(whole)) == whole


@given(records, st.data())
def test_truncated_or_modified_record_is_rejected(record: Record, data: st.DataObject) -> None:
    whole = encode(record)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(CodecError):
        decode(whole[:cut])
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CodecError):
        decode(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])


HEADER = FrameHeader("door@1", 3, 0.2, 1)


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_unsupported_version_is_rejected(version: int) -> None:
    """Version 1 is the first, so no earlier version is read."""
    with pytest.raises(CodecError, match=f"version {VERSION}, received version {version}"):
        decode(bytes([version]) + encode(HEADER)[1:])


def test_bytes_of_version_1_do_not_change() -> None:
    """A queue may contain bytes written by the first release."""
    data = bytes.fromhex("010303000000000000009a9999999999c93f010000000600646f6f724031")
    assert decode(data + struct.pack("<I", crc32(data))) == HEADER
    assert encode(HEADER)[:-4] == data


def test_encoded_crop_has_2_4_kilobytes() -> None:
    key = FaceKey("front-door@1767225600000", 1, 1)
    face = Face(key, 0.2, 1e9, np.zeros(4, np.float32), 0.9, Quality(1.0, "ok"))
    assert 2400 <= len(encode(FaceCrop(face, np.zeros((48, 48), np.uint8)))) <= 2500


@given(crops)
def test_wrong_shape_is_rejected_by_encode(crop: FaceCrop) -> None:
    with pytest.raises(CodecError, match=r"Expected uint8 \(48, 48\), received uint8 \(64, 64\)"):
        encode(replace(crop, pixels=np.zeros((64, 64), np.uint8)))
    with pytest.raises(CodecError, match=r"Expected float32 \(4,\), received float32 \(5,\)"):
        encode(replace(crop, face=replace(crop.face, xyxy=np.zeros(5, np.float32))))


@pytest.mark.parametrize(
    "record",
    [FrameHeader("x" * 70_000, 0, 0.0, 0), FrameHeader("\ud800", 0, 0.0, 0), FrameHeader("door", 2**63, 0.0, 0)],
)
def test_values_out_of_range_are_rejected_by_encode(record: FrameHeader) -> None:
    with pytest.raises(CodecError, match="FrameHeader does not fit"):
        encode(record)


@given(crops)
def test_decoded_arrays_are_read_only(crop: FaceCrop) -> None:
    decoded = decode(encode(crop))
    assert isinstance(decoded, FaceCrop)
    assert not decoded.pixels.flags.writeable
    assert not decoded.face.xyxy.flags.writeable
