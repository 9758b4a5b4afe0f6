"""JSON schema of results, shared by the store, the HTTP API, JSON lines and timeline.json.

`docs/reference/store.md` is the public description. A name with the suffix `_at` (or `at`) contains Unix seconds, one
with the suffix `_s` media seconds of the session. Numbers have as many decimals as in NAME.frames.csv, which is the
accuracy of the models: boxes 2, probabilities 4, times 6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, cast

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from fer_stream.errors import CodecError
from fer_stream.records import (
    F32,
    Gap,
    LabelledFace,
    LabelledFrame,
    Quality,
    QualityReason,
    Segment,
    UnknownReason,
    unix_time,
)

VERSION: Literal[1] = 1
"""Value of `v` in every stored document. A version can get new names, but no name is removed or redefined."""

_BOX_DECIMALS, _PROB_DECIMALS, _TIME_DECIMALS = 2, 4, 6

StreamId = Annotated[str, Field(pattern=r"^[^@]*(@[0-9]{1,16})?$")]
Probabilities = Annotated[list[float], Field(min_length=7, max_length=7)]

_STRICT = ConfigDict(allow_inf_nan=False, strict=True, use_attribute_docstrings=True)


@with_config(_STRICT)
class FaceDocument(TypedDict):
    """One face of a frame."""

    person_id: int
    """Number of the person, unique within a session of the source."""
    xyxy: Annotated[list[float], Field(min_length=4, max_length=4)]
    """Left, top, right, bottom in px of the frame."""
    confidence: float
    """Confidence of the detector, 0 to 1."""
    quality: float
    """Suitability for classification, 0 to 1."""
    quality_reason: str
    """`ok`, or why the face gets no label: small, blurred, off_frontal, truncated, unclear."""
    probs: Probabilities
    """Probabilities as classified, in the order angry, disgust, fear, happy, sad, surprise, neutral."""
    smoothed: Probabilities
    """Smoothed probabilities in the same order, from which the label is derived."""
    label: str
    """One of the seven emotions, or `unknown`."""
    unknown_reason: NotRequired[str | None]
    """Why the label is `unknown`: small, blurred, off_frontal, truncated, unclear (most faces nearby), or undecided
    (no emotion is probable enough or lasts long enough). Null for an emotion; absent in documents of older
    releases."""


@with_config(_STRICT)
class FrameDocument(TypedDict):
    """One result: a frame and its faces. Labels are provisional and can change within about two seconds."""

    v: Literal[1]
    stream_id: StreamId
    """Session of the source: `front-door@1767225600000` for a start in Unix ms."""
    index: int
    time_s: float
    at: float
    """Time of the frame."""
    faces: list[FaceDocument]


@with_config(_STRICT)
class SegmentDocument(TypedDict):
    """Time range in which a person had one label. Final."""

    person_id: int
    label: str
    start_s: float
    end_s: float
    mean_prob: float
    """Mean smoothed probability of the label; 0 for `unknown`."""
    unknown_reason: NotRequired[str | None]
    """Reason that applies for the longest time in a segment of `unknown`. Null for an emotion; absent in documents of
    older releases."""


@with_config(_STRICT)
class StoredSegment(SegmentDocument):
    """A segment of a stored source."""

    v: Literal[1]
    stream_id: StreamId
    start_at: float
    end_at: float


@with_config(_STRICT)
class GapDocument(TypedDict):
    """Time range in which the source delivered no frames."""

    reason: str
    start_s: float
    end_s: float


@with_config(_STRICT)
class StoredGap(GapDocument):
    """A gap of a stored source."""

    v: Literal[1]
    stream_id: StreamId
    start_at: float
    end_at: float


@with_config(_STRICT)
class PreviewHeader(TypedDict):
    """Line before the JPEG of a preview. The size is that of the frame."""

    v: Literal[1]
    stream_id: StreamId
    index: int
    width: int
    height: int


# Records to documents


def frame_document(frame: LabelledFrame) -> FrameDocument:
    """Convert a frame."""
    return {
        "v": VERSION,
        "stream_id": frame.stream_id,
        "index": frame.index,
        "time_s": round_time(frame.time_s),
        "at": round_time(unix_time(frame.stream_id, frame.time_s)),
        "faces": [face_document(face) for face in frame.faces],
    }


def face_document(face: LabelledFace) -> FaceDocument:
    """Convert a face."""
    return {
        "person_id": face.person_id,
        "xyxy": _rounded(face.xyxy, _BOX_DECIMALS),
        "confidence": round_prob(face.confidence),
        "quality": round_prob(face.quality.score),
        "quality_reason": face.quality.reason,
        "probs": _rounded(face.probs, _PROB_DECIMALS),
        "smoothed": _rounded(face.smoothed, _PROB_DECIMALS),
        "label": face.label,
        "unknown_reason": face.unknown_reason,
    }


def segment_document(segment: Segment) -> SegmentDocument:
    """Convert a segment for a file whose session is known, such as timeline.json."""
    return {
        "person_id": segment.person_id,
        "label": segment.label,
        "start_s": round_time(segment.start_s),
        "end_s": round_time(segment.end_s),
        "mean_prob": round_prob(segment.mean_prob),
        "unknown_reason": segment.unknown_reason,
    }


def stored_segment(segment: Segment) -> StoredSegment:
    """Convert a segment for the store. The same segment always gives the same document."""
    return {
        "v": VERSION,
        "stream_id": segment.stream_id,
        **segment_document(segment),
        "start_at": round_time(unix_time(segment.stream_id, segment.start_s)),
        "end_at": round_time(unix_time(segment.stream_id, segment.end_s)),
    }


def gap_document(gap: Gap) -> GapDocument:
    """Convert a gap for a file whose session is known."""
    return {"reason": gap.reason, "start_s": round_time(gap.start_s), "end_s": round_time(gap.end_s)}


def stored_gap(gap: Gap) -> StoredGap:
    """Convert a gap for the store. The same gap always gives the same document."""
    return {
        "v": VERSION,
        "stream_id": gap.stream_id,
        **gap_document(gap),
        "start_at": round_time(unix_time(gap.stream_id, gap.start_s)),
        "end_at": round_time(unix_time(gap.stream_id, gap.end_s)),
    }


def round_time(time_s: float) -> float:
    """Round seconds like the table does."""
    return round(float(time_s), _TIME_DECIMALS)


def round_prob(prob: float) -> float:
    """Round a probability or a share like the table does."""
    return round(float(prob), _PROB_DECIMALS)


# Documents to records


def frame_of(document: FrameDocument) -> LabelledFrame:
    """Convert a document to a frame; equal to the original except for rounding."""
    faces = tuple(_face_of(face) for face in document["faces"])
    return LabelledFrame(document["stream_id"], document["index"], document["time_s"], faces)


def segment_of(document: StoredSegment) -> Segment:
    """Convert a document to a segment; equal to the original except for rounding."""
    return Segment(
        stream_id=document["stream_id"],
        person_id=document["person_id"],
        label=document["label"],
        start_s=document["start_s"],
        end_s=document["end_s"],
        mean_prob=document["mean_prob"],
        unknown_reason=cast(UnknownReason | None, document.get("unknown_reason")),
    )


def gap_of(document: StoredGap) -> Gap:
    """Convert a document to a gap; equal to the original except for rounding."""
    return Gap(document["stream_id"], document["start_s"], document["end_s"], document["reason"])


def _face_of(face: FaceDocument) -> LabelledFace:
    # Reasons are not limited to the current ones: a newer release may add some.
    quality = Quality(face["quality"], cast(QualityReason, face["quality_reason"]))
    return LabelledFace(
        person_id=face["person_id"],
        xyxy=np.array(face["xyxy"], np.float32),
        confidence=face["confidence"],
        quality=quality,
        probs=np.array(face["probs"], np.float32),
        smoothed=np.array(face["smoothed"], np.float32),
        label=face["label"],
        unknown_reason=cast(UnknownReason | None, face.get("unknown_reason")),
    )


# Documents to and from JSON


def to_json(document: Mapping[str, Any]) -> str:
    """Return a document as one line. Raises `CodecError` if a number is not finite."""
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise CodecError(f"Cannot store a result of {document['stream_id']}: a number is not finite") from error


def parse_frame(text: str | bytes) -> FrameDocument:
    """Parse and validate a stored frame. Raises `CodecError` if it is invalid."""
    return cast(FrameDocument, _parse(FrameDocument, "frame", text))


def parse_segment(text: str | bytes) -> StoredSegment:
    """Parse and validate a stored segment. Raises `CodecError` if it is invalid."""
    return cast(StoredSegment, _parse(StoredSegment, "segment", text))


def parse_gap(text: str | bytes) -> StoredGap:
    """Parse and validate a stored gap. Raises `CodecError` if it is invalid."""
    return cast(StoredGap, _parse(StoredGap, "gap", text))


def parse_preview_header(text: bytes) -> PreviewHeader:
    """Parse and validate the header of a preview. Raises `CodecError` if it is invalid."""
    return cast(PreviewHeader, _parse(PreviewHeader, "preview", text))


def _parse(schema: Any, name: str, text: str | bytes) -> Any:
    try:
        return _adapter(schema).validate_json(text)
    except ValidationError as error:
        # Without the input, which can contain data of persons.
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{key}: " for key in first["loc"])
        raise CodecError(f"Invalid {name} in the store, expected version {VERSION}: {where}{first['msg']}") from None


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def _rounded(array: F32, decimals: int) -> list[float]:
    # In double precision: a rounded float32 gets many digits when it is converted to a Python float.
    return [round(number, decimals) for number in array.tolist()]
