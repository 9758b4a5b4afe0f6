"""Protocol of frame sources, and reduction of their frame rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from fer_stream.records import TIMESTAMP_TOLERANCE_S, DecodeErrors, Frame, SourceInfo


class FrameSource(Protocol):
    """Source of frames: a video file, a camera or a still image.

    The constructor opens the source. It raises a `SourceError` that names the source and the remedy.
    """

    stream_id: str

    @property
    def info(self) -> SourceInfo:
        """Properties of the source that are available before the first frame."""
        ...

    @property
    def decode_errors(self) -> DecodeErrors:
        """Packets that could not be decoded so far."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order; `index` counts from 0 and `time_s` never decreases."""
        ...

    def close(self) -> None:
        """Release all resources. May be called twice, and while `frames()` is suspended."""
        ...


class Sampler:
    """Selects at most `fps` frames per second; `fps` None selects all.

    Media time is divided into slots of 1/fps s, starting at zero, and the first frame of each slot is selected. The
    decision depends on the time of the frame alone, not on frames dropped before it.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None and fps <= 0:
            raise ValueError(f"fps must be above 0, got {fps}")
        self._fps = fps
        self._slot = -1

    def accept(self, time_s: float) -> bool:
        """Return True if the frame at `time_s`, in media seconds, is selected."""
        if self._fps is None:
            return True
        slot = int((time_s + TIMESTAMP_TOLERANCE_S) * self._fps)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


def throttle(
    frames: Iterator[Frame], *, monotonic: Callable[[], float], wait: Callable[[float], object]
) -> Iterator[Frame]:
    """Delay each frame until its media time has passed since the first one, to play a file at its own speed."""
    started_s: float | None = None
    for frame in frames:
        started_s = monotonic() - frame.time_s if started_s is None else started_s
        if (early_s := started_s + frame.time_s - monotonic()) > 0:
            wait(early_s)
        yield frame
