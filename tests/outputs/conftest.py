"""Labelled frames of a short clip, its summary, and a source of its frames."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

from fer_stream.capture.pixel_formats import ArrayPixels
from fer_stream.records import (
    LABELS,
    U8,
    UNKNOWN,
    DecodeErrors,
    FileSummary,
    Frame,
    LabelledFace,
    LabelledFrame,
    ModelSpec,
    PersonSummary,
    Quality,
    Segment,
    SourceInfo,
    UnknownReason,
)

FaceMaker = Callable[..., LabelledFace]
FrameMaker = Callable[..., LabelledFrame]


@dataclass
class ArraySource:
    """A `FrameSource` of arrays, each uint8 (H, W, 3) BGR."""

    images: Sequence[U8]
    times_s: Sequence[float]
    stream_id: str = "clip@1"
    decode_errors: DecodeErrors = field(default_factory=DecodeErrors)
    closed: bool = False

    @property
    def info(self) -> SourceInfo:
        height, width = self.images[0].shape[:2]
        return SourceInfo("clip.mp4", "video", width, height, 25.0, len(self.images), None, "h264", "yuv420p")

    def frames(self) -> Iterator[Frame]:
        for index, (image, time_s) in enumerate(zip(self.images, self.times_s, strict=True)):
            yield Frame(self.stream_id, index, time_s, 0.0, ArrayPixels(image))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def array_source() -> type[ArraySource]:
    return ArraySource


@pytest.fixture(scope="session")
def gradient() -> Callable[[int, int], U8]:
    """Return a function that makes a frame of a width and height, brighter to the right and to the bottom."""

    def make(width: int, height: int) -> U8:
        across = np.linspace(60, 200, width)[None, :, None]
        down = np.linspace(-30, 30, height)[:, None, None]
        return np.broadcast_to(across + down, (height, width, 3)).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def silent_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video without audio, which the annotated video copies its audio from."""
    path = tmp_path_factory.mktemp("input") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def face() -> FaceMaker:
    """Return a function that makes a face whose highest probability is that of its label."""

    def make(
        person_id: int = 1,
        label: str = "happy",
        box: Sequence[float] = (40, 30, 80, 90),
        quality: Quality = Quality(0.9, "ok"),  # noqa: B008 - frozen
    ) -> LabelledFace:
        probs = np.full(7, 0.05, np.float32)
        probs[LABELS.index(label) if label != UNKNOWN else 6] = 0.7
        reason: UnknownReason = "undecided" if quality.reason == "ok" else quality.reason
        return LabelledFace(
            person_id=person_id,
            xyxy=np.array(box, np.float32),
            confidence=0.87654,
            quality=quality,
            probs=probs,
            smoothed=probs[::-1].copy(),
            label=label,
            unknown_reason=reason if label == UNKNOWN else None,
        )

    return make


@pytest.fixture(scope="session")
def frame() -> FrameMaker:
    """Return a function that makes a frame from an index and faces."""

    def make(index: int, *faces: LabelledFace, fps: float = 25.0) -> LabelledFrame:
        return LabelledFrame("clip@1", index, index / fps, faces)

    return make


@pytest.fixture(scope="session")
def frames(face: FaceMaker, frame: FrameMaker) -> list[LabelledFrame]:
    """Two seconds at 25 fps: person 1 except in frames 10 to 14, person 2 in the second half."""
    return [
        frame(
            index,
            *([] if 10 <= index < 15 else [face(1, "happy" if index < 30 else UNKNOWN)]),
            *([face(2, "sad", (100, 20 + 5 * math.sin(index), 140, 80))] if index >= 25 else []),
        )
        for index in range(50)
    ]


@pytest.fixture(scope="session")
def summary() -> FileSummary:
    """Summary of `frames`."""
    return FileSummary(
        source=SourceInfo("clip.mp4", "video", 176, 144, 25.0, 50, 2.0, "h264", "yuv420p"),
        decode_errors=DecodeErrors(2, "Invalid data found when processing input", truncated=True),
        frames=50,
        duration_s=2.0,
        unconfirmed_faces=1,
        smallest_face_px=32.0,
        people=(
            PersonSummary(
                1, 0.0, 2.0, 45,
                (
                    Segment("clip@0", 1, "happy", 0.0, 1.2, 0.7),
                    Segment("clip@0", 1, UNKNOWN, 1.2, 2.0, 0.0, "undecided"),
                ),
                {"happy": 0.6, UNKNOWN: 0.4}, {"undecided": 0.4},
            ),
            PersonSummary(2, 1.0, 2.0, 25, (Segment("clip@0", 2, "sad", 1.0, 2.0, 0.65),), {"sad": 1.0}),
        ),
        detector="yunet-2023mar",
        backend="litert",
        model=ModelSpec("emotion-1", LABELS, 48, 1, "ab" * 32, "FER-2013", "Apache-2.0", {"accuracy": 0.728}),
        settings={"fps": None, "detector": {"type": "auto", "weights": Path("/home/ada/models/yunet.onnx")}},
        versions={"fer-stream": "0.1.0"},
    )  # fmt: skip


@pytest.fixture
def forbid_writing() -> Iterator[Callable[[Path], None]]:
    """Return a function that makes a directory read-only until the end of the test.

    Root may write anyway, so it becomes `nobody` for that time.
    """
    user = os.geteuid()
    forbidden: list[Path] = []

    def forbid(directory: Path) -> None:
        directory.chmod(0o555)
        forbidden.append(directory)
        if user == 0:
            os.seteuid(65534)

    yield forbid
    os.seteuid(user)
    for directory in forbidden:
        directory.chmod(0o755)
