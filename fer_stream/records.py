"""Records that the stages exchange.

All records are frozen. Arrays in a record are never modified after its creation. Shapes are validated where data
enters the program (source, codec, model), not between stages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven emotions of FER-2013, in the order of its labels (Goodfellow et al., 2013)."""

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""The eight emotions of FER+, in the order of its votes (Barsoum et al., 2016)."""

FERPLUS_BY_LABEL = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""The FER+ emotion that corresponds to each of `LABELS`."""

UNKNOWN = "unknown"
"""Label of a face that cannot be assessed. It is not an eighth emotion."""

TIMESTAMP_TOLERANCE_S = 0.0011
"""Tolerance for frame times: Matroska and FLV round them, and the start time, to 1 ms. Without it, every third frame
at 30 fps would arrive just before it is due."""

CROP_SIZE_PX = 48
"""Side length of a face crop, equal to that of a FER-2013 image."""

QualityReason = Literal["ok", "small", "blurred", "off_frontal", "truncated", "unclear"]

UnknownReason = Literal["small", "blurred", "off_frontal", "truncated", "unclear", "undecided"]
"""Why a label is `unknown`: the quality of most faces nearby, or `undecided` if they are good enough, but no emotion
is probable enough or lasts long enough."""


def stream_id_of(source: str, start_ms: int) -> str:
    """Return the id of one session of a source: `front-door@1767225600000` for a start in Unix ms."""
    return f"{source}@{start_ms}"


def shard_of(source: str, shards: int) -> int:
    """Return the shard of a source: the CRC-32 of its name modulo `shards`."""
    return crc32(source.encode()) % shards


def source_of(stream_id: str) -> str:
    """Return the source of a stream. A stream id without a session start, as of a plain file, is the source."""
    return stream_id.partition("@")[0]


def stream_start_ms(stream_id: str) -> int:
    """Return the start of the session in Unix ms; 0 for a stream id without one."""
    return int(stream_id.partition("@")[2] or 0)


def unix_time(stream_id: str, time_s: float) -> float:
    """Return the wall time in Unix seconds of media time `time_s` of a stream."""
    return stream_start_ms(stream_id) / 1000 + time_s


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Properties of an open source.

    `fps` is the average frame rate, `frames` and `duration_s` are the values declared by the container; each is None
    if not declared. They can be wrong: the PTS of each frame is authoritative. Frames from
    `start_s` to `end_s` (None: the end) are read.
    """

    name: str
    kind: Literal["video", "image"]
    width: int
    height: int
    fps: float | None
    frames: int | None
    duration_s: float | None
    codec: str
    pixel_format: str
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def length_s(self) -> float | None:
        """Length in seconds of the part that is read, or None if the container declares none."""
        duration_s = self.duration_s or (self.frames / self.fps if self.frames and self.fps else None)
        end_s = min(filter(None, (duration_s, self.end_s)), default=None)
        return None if end_s is None else max(0.0, end_s - self.start_s)


@dataclass(frozen=True, slots=True)
class DecodeErrors:
    """Packets of a source that could not be decoded, or only partly, and the first reason.

    `truncated` is True if the stream ended before the duration that its container declares.
    """

    packets: int = 0
    reason: str | None = None
    truncated: bool = False


class Pixels(Protocol):
    """Pixels of a frame. May be used by several threads."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        ...

    def bgr(self) -> U8:
        """Return the colours, uint8 (H, W, 3) BGR; converted on first use."""
        ...

    def gray(self) -> U8:
        """Return the luma, uint8 (H, W), full range 0 to 255; converted on each call."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a stream.

    `time_s` is media time in seconds since the start of the session; `captured_at` is Unix time in seconds, used only
    to measure latency.
    """

    stream_id: str
    index: int
    time_s: float
    captured_at: float
    pixels: Pixels

    @property
    def image(self) -> U8:
        """Colours, uint8 (H, W, 3) BGR."""
        return self.pixels.bgr()


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Number of tracked faces in frame `index`. Every analysed frame has one."""

    stream_id: str
    index: int
    time_s: float
    faces: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Time range, in media seconds, in which a source delivered no frames."""

    stream_id: str
    start_s: float
    end_s: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The n faces detected in one frame.

    `xyxy` is float32 (n, 4) in px, `confidence` float32 (n,), `landmarks` float32 (n, 5, 2) in px in the order right
    eye, left eye, nose tip, right mouth corner, left mouth corner (right and left of the person), or None if the
    detector returns none.
    """

    xyxy: F32
    confidence: F32
    landmarks: F32 | None = None

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def none(cls) -> Detections:
        """Return detections without any face."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))


@dataclass(frozen=True, slots=True)
class Quality:
    """Suitability of a face for classification: `score` 0 to 1, and the reason if it is unsuitable."""

    score: float
    reason: QualityReason

    @property
    def ok(self) -> bool:
        """Whether the face may get an emotion as its label."""
        return self.reason == "ok"


@dataclass(frozen=True, slots=True)
class FaceKey:
    """Identity of one face in one frame; the idempotency key of its records."""

    stream_id: str
    person_id: int
    frame_index: int


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One tracked face in one frame. `xyxy` is float32 (4,) in px of the frame.

    Alone, it is the message of a face that is not classified because the same face just was: its label follows from
    its neighbours in time.
    """

    key: FaceKey
    time_s: float
    captured_at: float
    xyxy: F32
    confidence: float
    quality: Quality


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """A face to classify. `pixels` is uint8 (48, 48) gray."""

    face: Face
    pixels: U8


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Result of a classifier for one face: `probs` is float32 (7,) in the order of `LABELS`, with sum 1."""

    face: Face
    probs: F32
    model_id: str


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """Last message of a stream, with the numbers of its frames and of its crops."""

    stream_id: str
    time_s: float
    frames: int
    crops: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Contents of a model card. `input_size` is the side length in px, `sha256` the checksum of the weights.

    `temperature` is the divisor of the logits before the softmax; None if the model returns probabilities.
    """

    model_id: str
    labels: tuple[str, ...]
    input_size: int
    channels: int
    sha256: str
    dataset: str
    licence: str
    metrics: dict[str, float]
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Time range, in media seconds, in which one person has one label, which may be `unknown`. It is final.

    `mean_prob` is the mean smoothed probability of the label in the segment; 0 for `unknown`. `unknown_reason` is the
    reason that applies for the longest time in a segment of `unknown`; None for an emotion.
    """

    stream_id: str
    person_id: int
    label: str
    start_s: float
    end_s: float
    mean_prob: float
    unknown_reason: UnknownReason | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFace:
    """One face of one frame with its label: a row of the table, a box in the video.

    `probs` is the output of the classifier and `smoothed` the probabilities that determine the label, both float32
    (7,). They are equal for a face that was not classified. `quality` is that of this face alone; `unknown_reason` is
    why the label is `unknown`, and None for an emotion.
    """

    person_id: int
    xyxy: F32
    confidence: float
    quality: Quality
    probs: F32
    smoothed: F32
    label: str
    unknown_reason: UnknownReason | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """One frame with the labels of its faces, sorted by person_id; `faces` may be empty."""

    stream_id: str
    index: int
    time_s: float
    faces: tuple[LabelledFace, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EmotionTimeline:
    """Emotions of one person of one stream over time; n is the number of frames with the face.

    `frame_index` is int64 (n,), `time_s` float64 (n,) in media seconds, `probs` float32 (n, 7) as classified,
    `quality` float32 (n,).
    """

    stream_id: str
    person_id: int
    labels: tuple[str, ...]
    frame_index: I64
    time_s: F64
    probs: F32
    quality: F32
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class PersonSummary:
    """Summary of one person of one stream: first and last appearance, number of frames, and segments.

    `shares` maps each label that occurred to its share of the person's time, 0 to 1; the sum is 1. `unknown_shares`
    maps each reason of a segment of `unknown` to its share of the person's time; the sum is the share of `unknown`.
    """

    person_id: int
    first_s: float
    last_s: float
    frames: int
    segments: tuple[Segment, ...]
    shares: dict[str, float]
    unknown_shares: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Input and time of an analysis whose results are files.

    `path` is absolute, or `-` for standard input; `sha256` is the checksum of the file, `analysed_at` the start in
    Unix seconds, `command` the command line without passwords, or None.
    """

    path: str
    size_bytes: int
    sha256: str
    analysed_at: float
    command: str | None = None


@dataclass(frozen=True, slots=True)
class FileSummary:
    """Result of one file.

    `frames` is the number of frames analysed, `unconfirmed_faces` the number of detections that appeared in a
    single frame and were not assigned to anyone: no table contains them. `smallest_face_px` is the side of a face
    from which the detector finds most in this source, None if unknown. `stopped` is the reason why the run ended
    early, or None. `detector`, `backend` (the one that ran the model), `model`, `versions`, `settings` and
    `provenance` record how the result was produced; `provenance` is None for a result in memory.
    """

    source: SourceInfo
    decode_errors: DecodeErrors
    frames: int
    duration_s: float
    unconfirmed_faces: int
    smallest_face_px: float | None
    people: tuple[PersonSummary, ...]
    detector: str
    backend: str
    model: ModelSpec
    settings: dict[str, object]
    versions: dict[str, str]
    stopped: str | None = None
    provenance: Provenance | None = None
