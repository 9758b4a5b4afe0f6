"""What a source of frames is, and how its frame rate is lowered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from fer_stream.records import TIMESTAMP_TOLERANCE_S, DecodeErrors, Frame, SourceInfo


class FrameSource(Protocol):
    """Something that gives frames: a video file, a camera, a still image.

    A source is opened by its constructor, which raises a `SourceError` that names the source and the cure.
    """

    stream_id: str

    @property
    def info(self) -> SourceInfo:
        """What is known of the source before its first frame."""
        ...

    @property
    def decode_errors(self) -> DecodeErrors:
        """What could not be decoded so far."""
        ...

    def frames(self) -> Iterator[Frame]:
        """The frames in order; `index` counts from 0 and `time_s` never goes backwards."""
        ...

    def close(self) -> None:
        """Release everything. May be called twice, and while `frames()` is suspended."""
        ...


class Sampler:
    """Picks frames so that at most `fps` a second remain; `fps` None keeps them all.

    The media time is cut into slots of 1/fps s from zero; the first frame of each slot is kept, so that the
    choice depends on the frame's own time alone and not on what was dropped before.
    """

    def __init__(self, fps: float | None) -> None:
        if fps is not None and fps <= 0:
            raise ValueError(f"Expected an fps above 0, received {fps}")
        self._fps = fps
        self._slot = -1

    def keep(self, time_s: float) -> bool:
        """Is the frame at `time_s` media seconds one to process?"""
        if self._fps is None:
            return True
        slot = int((time_s + TIMESTAMP_TOLERANCE_S) * self._fps)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


def in_real_time(
    frames: Iterator[Frame], *, monotonic: Callable[[], float], wait: Callable[[float], object]
) -> Iterator[Frame]:
    """Hold each frame back until its media time has passed since the first, so that a file plays like a camera."""
    began_s: float | None = None
    for frame in frames:
        began_s = monotonic() - frame.time_s if began_s is None else began_s
        if (early_s := began_s + frame.time_s - monotonic()) > 0:
            wait(early_s)
        yield frame
