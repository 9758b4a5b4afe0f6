"""The records that the stages hand to each other.

Every record is frozen. Arrays inside a record are never written to after it was made. Shapes are checked
where data enters (a source, a codec, a model), not again at every hop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""The eight emotions of FER+, in the order of its votes (Barsoum et al., 2016)."""

FERPLUS_BY_LABEL = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""What FER+ calls each of `LABELS`."""

UNKNOWN = "unknown"
"""The label of a face that cannot be judged: it is not an eighth emotion."""

TIMESTAMP_TOLERANCE_S = 0.0011
"""How far times of frames may be off: Matroska and FLV round them to 1 ms, and so the start too. Without it every
third frame of 30 fps would come just before it is due."""

CROP_SIZE_PX = 48
"""Side of a face crop: the size of a FER-2013 image."""

QualityReason = Literal["ok", "small", "blurred", "off_frontal", "truncated", "unclear"]


def stream_id_of(source: str, start_ms: int) -> str:
    """The name of one opening of a source: `front-door@1767225600000` for an epoch in Unix ms."""
    return f"{source}@{start_ms}"


def source_of(stream_id: str) -> str:
    """The source of a stream; a stream without an epoch, as of a plain file, is its own source."""
    return stream_id.partition("@")[0]


def stream_start_ms(stream_id: str) -> int:
    """When the stream was opened, in Unix ms; 0 for a stream without an epoch."""
    return int(stream_id.partition("@")[2] or 0)


def unix_time(stream_id: str, time_s: float) -> float:
    """The wall time, in Unix seconds, of media time `time_s` of a stream."""
    return stream_start_ms(stream_id) / 1000 + time_s


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source once it is open.

    `fps` is the average frame rate, `frames` and `duration_s` what the container claims; each is None where it
    does not say. None of them is a promise: the PTS of each frame is the truth.
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


@dataclass(frozen=True, slots=True)
class DecodeErrors:
    """What of a source was lost: packets that could not be decoded, or only in part, and the first reason given.

    `truncated` says that the stream ended before its container said it would.
    """

    packets: int = 0
    reason: str | None = None
    truncated: bool = False


class Pixels(Protocol):
    """The pixels of a picture. Any thread may ask for them."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        ...

    def bgr(self) -> U8:
        """The colours, uint8 (H, W, 3) BGR; made when they are first asked for."""
        ...

    def gray(self) -> U8:
        """The luma, uint8 (H, W) from 0 to 255; made anew each time."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a stream.

    `time_s` is media time in seconds since the stream was opened; `captured_at` is Unix time in seconds and serves
    latency only.
    """

    stream_id: str
    index: int
    time_s: float
    captured_at: float
    pixels: Pixels

    @property
    def image(self) -> U8:
        """Its colours, uint8 (H, W, 3) BGR."""
        return self.pixels.bgr()


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """Says that frame `index` was looked at and held `faces` followed faces. Every frame leaves one."""

    stream_id: str
    index: int
    time_s: float
    faces: int


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of time, in media seconds, in which a source gave no frames."""

    source: str
    start_s: float
    end_s: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The n faces found in one frame.

    `xyxy` is float32 (n, 4) in px, `confidence` float32 (n,), `landmarks` float32 (n, 5, 2) in px in the order
    right eye, left eye, nose tip, right mouth corner, left mouth corner (the person's right and left), or None
    where the detector has none.
    """

    xyxy: F32
    confidence: F32
    landmarks: F32 | None = None

    def __len__(self) -> int:
        return len(self.xyxy)

    @classmethod
    def none(cls) -> Detections:
        """No face at all."""
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a face can be judged: `score` 0..1, and why not where `reason` is other than ok."""

    score: float
    reason: QualityReason

    @property
    def ok(self) -> bool:
        """Is this face worth a label?"""
        return self.reason == "ok"


@dataclass(frozen=True, slots=True)
class FaceKey:
    """Names one face in one frame: the idempotency key of everything said about it."""

    stream_id: str
    person_id: int
    frame_index: int


@dataclass(frozen=True, slots=True, eq=False)
class FaceCrop:
    """One face on its way to a classifier.

    `xyxy` is float32 (4,) in px of the frame, `pixels` uint8 (48, 48) gray.
    """

    key: FaceKey
    time_s: float
    captured_at: float
    xyxy: F32
    confidence: float
    quality: Quality
    pixels: U8


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a classifier said of one face: `probs` float32 (7,) in the order of `LABELS`, summing to 1.

    `probs` is None, and `model_id` empty, where the face was not classified because the same face just was: what it
    shows is then told by its neighbours in time.
    """

    key: FaceKey
    time_s: float
    captured_at: float
    xyxy: F32
    confidence: float
    quality: Quality
    probs: F32 | None
    model_id: str


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The last message of a stream: how many frames it had and how many crops were put."""

    stream_id: str
    time_s: float
    frames: int
    crops: int


LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven emotions of FER-2013, in the order of its labels (Goodfellow et al., 2013)."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model card says of a classifier. `input_size` is the side in px, `sha256` that of the weights.

    `temperature` is what its logits are divided by before the softmax; None where it gives probabilities itself.
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
    """A stretch of media time, in seconds, during which one person wore one label (which may be `unknown`).

    `mean_prob` is the mean smoothed probability of the label over the segment; 0 for `unknown`.
    """

    label: str
    start_s: float
    end_s: float
    mean_prob: float


@dataclass(frozen=True, slots=True)
class ClosedGap:
    """A gap that is over, and the stream whose media time it is in."""

    stream_id: str
    gap: Gap


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFace:
    """One face of one frame with its final label: a row of the table, a box in the picture.

    `probs` is what the classifier said, `smoothed` what the label was read from, both float32 (7,). They are the same
    where the face was not classified.
    """

    person_id: int
    xyxy: F32
    confidence: float
    quality: Quality
    probs: F32
    smoothed: F32
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFrame:
    """One frame with the final labels of all its faces, sorted by person_id. A frame without a face has none."""

    stream_id: str
    index: int
    time_s: float
    faces: tuple[LabelledFace, ...]


@dataclass(frozen=True, slots=True, eq=False)
class EmotionTimeline:
    """One person of one stream over time; n is the number of frames in which the face was seen.

    `frame_index` int64 (n,), `time_s` float64 (n,) in media seconds, `probs` float32 (n, 7) as classified,
    `quality` float32 (n,). `closed` says that nothing will be added.
    """

    stream_id: str
    person_id: int
    labels: tuple[str, ...]
    frame_index: I64
    time_s: F64
    probs: F32
    quality: F32
    segments: tuple[Segment, ...]
    closed: bool


@dataclass(frozen=True, slots=True)
class PersonSummary:
    """One person of one stream, summed up: when they were seen, in how many frames, and what they showed.

    `shares` maps each label that occurred to its part of the person's time, 0..1; the parts add up to 1.
    """

    person_id: int
    first_s: float
    last_s: float
    frames: int
    segments: tuple[Segment, ...]
    shares: dict[str, float]


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What one source gave in the end.

    `frames` counts the frames looked at, `unconfirmed_faces` the detections that were seen in a single frame and
    never followed: they are in no table. `stopped` is None where the whole source was read, else what ended the
    job early. `detector`, `model`, `versions` and `settings` say how the result came about.
    """

    source: SourceInfo
    decode_errors: DecodeErrors
    frames: int
    duration_s: float
    unconfirmed_faces: int
    people: tuple[PersonSummary, ...]
    detector: str
    model: ModelSpec
    settings: dict[str, object]
    versions: dict[str, str]
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A segment that nothing will change any more, and whose it is."""

    stream_id: str
    person_id: int
    segment: Segment
