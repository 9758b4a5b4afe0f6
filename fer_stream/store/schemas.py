"""Records ⇄ the JSON that other programs read. `docs/reference/store.md` is its public description.

A name that ends in `at` holds Unix seconds, one that ends in `_s` media seconds. Numbers have as many decimals as
in NAME.frames.csv, which is what the models are good for: boxes 2, probabilities 4, times 6.
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np

from fer_stream.errors import CodecError
from fer_stream.records import (
    F32,
    LABELS,
    Gap,
    LabelledFace,
    LabelledFrame,
    Quality,
    QualityReason,
    Segment,
    unix_time,
)
from fer_stream.store.protocol import Preview

VERSION = 1
"""Stands in every document as `v`. New names may be added to a version; none is removed or given another meaning."""

_BOX, _PROB, _TIME = 2, 4, 6

_MALFORMED = (KeyError, OverflowError, TypeError, ValueError)


def frame_to_json(frame: LabelledFrame) -> str:
    """A frame with its faces: about 120 bytes, and 250 a face. Raises `CodecError` where a number is not finite."""
    return _to_json(
        {
            "v": VERSION,
            "stream_id": frame.stream_id,
            "index": frame.index,
            "time_s": round(frame.time_s, _TIME),
            "at": round(unix_time(frame.stream_id, frame.time_s), _TIME),
            "faces": [_face(face) for face in frame.faces],
        }
    )


def frame_from_json(text: str | bytes) -> LabelledFrame:
    """The inverse of `frame_to_json`, but for the rounding. Raises `CodecError` where `text` is no frame."""
    document = _from_json(text)
    try:
        faces = tuple(_read_face(face) for face in document["faces"])
        return LabelledFrame(
            _stream_id(document["stream_id"]), _whole(document["index"]), _number(document["time_s"]), faces
        )
    except _MALFORMED as error:
        raise CodecError(f"A frame in the store is malformed: {error!r}") from error


def segment_to_json(closed: Segment) -> str:
    """A closed segment: about 200 bytes. The same segment always gives the same text."""
    segment = closed
    return _to_json(
        {
            "v": VERSION,
            "stream_id": closed.stream_id,
            "person_id": closed.person_id,
            "label": segment.label,
            "mean_prob": round(float(segment.mean_prob), _PROB),
            **_span(closed.stream_id, segment.start_s, segment.end_s),
        }
    )


def segment_from_json(text: str | bytes) -> Segment:
    """The inverse of `segment_to_json`, but for the rounding. Raises `CodecError` where `text` is no segment."""
    found = _from_json(text)
    try:
        return Segment(
            _stream_id(found["stream_id"]), _whole(found["person_id"]), _text(found["label"]),
            _number(found["start_s"]), _number(found["end_s"]), _number(found["mean_prob"]),
        )  # fmt: skip
    except _MALFORMED as error:
        raise CodecError(f"A segment in the store is malformed: {error!r}") from error


def gap_to_json(closed: Gap) -> str:
    """A gap that is over: about 170 bytes. The same gap always gives the same text."""
    gap = closed
    return _to_json(
        {
            "v": VERSION,
            "stream_id": closed.stream_id,
            "reason": gap.reason,
            **_span(closed.stream_id, gap.start_s, gap.end_s),
        }
    )


def gap_from_json(text: str | bytes) -> Gap:
    """The inverse of `gap_to_json`, but for the rounding. Raises `CodecError` where `text` is no gap."""
    found = _from_json(text)
    try:
        stream_id = _stream_id(found["stream_id"])
        start_s, end_s = _number(found["start_s"]), _number(found["end_s"])
        return Gap(stream_id, start_s, end_s, _text(found["reason"]))
    except _MALFORMED as error:
        raise CodecError(f"A gap in the store is malformed: {error!r}") from error


def preview_to_bytes(preview: Preview) -> bytes:
    """A picture: a line of JSON that says which, then the JPEG."""
    head = {
        "v": VERSION,
        "stream_id": preview.stream_id,
        "index": preview.index,
        "width": preview.width,
        "height": preview.height,
    }
    return _to_json(head).encode() + b"\n" + preview.jpeg


def preview_from_bytes(message: bytes) -> Preview:
    """The inverse of `preview_to_bytes`. Raises `CodecError` where `message` is no picture."""
    head, _, jpeg = message.partition(b"\n")
    found = _from_json(head)
    try:
        width, height = _whole(found["width"]), _whole(found["height"])
        return Preview(_stream_id(found["stream_id"]), _whole(found["index"]), width, height, jpeg)
    except _MALFORMED as error:
        raise CodecError(f"A picture on its way is malformed: {error!r}") from error


def start_at(text: str | bytes) -> float:
    """When the segment or gap in `text` began, in Unix seconds."""
    try:
        return _number(_from_json(text)["start_at"])
    except _MALFORMED as error:
        raise CodecError(f"A segment or gap in the store does not say when it began: {error!r}") from error


def _span(stream_id: str, start_s: float, end_s: float) -> dict[str, float]:
    return {
        "start_s": round(start_s, _TIME),
        "end_s": round(end_s, _TIME),
        "start_at": round(unix_time(stream_id, start_s), _TIME),
        "end_at": round(unix_time(stream_id, end_s), _TIME),
    }


def _face(face: LabelledFace) -> dict[str, Any]:
    return {
        "person_id": face.person_id,
        "xyxy": _rounded(face.xyxy, _BOX),
        "confidence": round(float(face.confidence), _PROB),
        "quality": round(float(face.quality.score), _PROB),
        "quality_reason": face.quality.reason,
        "probs": _rounded(face.probs, _PROB),
        "smoothed": _rounded(face.smoothed, _PROB),
        "label": face.label,
    }


def _read_face(face: dict[str, Any]) -> LabelledFace:
    return LabelledFace(
        person_id=_whole(face["person_id"]),
        xyxy=_array(face["xyxy"], 4),
        confidence=_number(face["confidence"]),
        quality=Quality(_number(face["quality"]), _reason(face["quality_reason"])),
        probs=_array(face["probs"], len(LABELS)),
        smoothed=_array(face["smoothed"], len(LABELS)),
        label=_text(face["label"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, received {type(value).__name__}")
    return value


def _stream_id(value: object) -> str:
    stream_id = _text(value)
    unix_time(stream_id, 0.0)
    return stream_id


def _reason(value: object) -> QualityReason:
    # Not checked against those we know: a newer release may have others.
    return cast(QualityReason, _text(value))


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a whole number, received {type(value).__name__}")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a number, received {type(value).__name__}")
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)


def _rounded(array: F32, decimals: int) -> list[float]:
    # In double precision: a rounded float32 has its long tail of digits back as soon as it is a Python float.
    return [round(number, decimals) for number in array.tolist()]


def _array(numbers: list[float], count: int) -> F32:
    array = np.array([_number(number) for number in numbers], np.float32)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"expected {count} finite numbers")
    return array


def _to_json(document: dict[str, Any]) -> str:
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise CodecError(
            f"What is to be stored of {document['stream_id']} holds a number that is not finite"
        ) from error


def _from_json(text: str | bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise CodecError(f"Expected JSON in the store: {error}") from error
    version = document.get("v") if isinstance(document, dict) else None
    if version != VERSION:
        raise CodecError(f"Expected a document of version {VERSION} in the store, received version {version}")
    found: dict[str, Any] = document
    return found
