"""The rows of the table: a module each, whose `measure` gives the lines. Each runs in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.goals import NotMeasurable
from benchmarks.material import FOLDER
from fer_stream import FileSettings
from fer_stream.config.settings import DetectorSettings, OutputSettings


@dataclass(frozen=True, slots=True)
class Options:
    """What all rows are told. `quick` measures less often, with a wider spread."""

    quick: bool = False
    material: Path = FOLDER

    @property
    def rounds(self) -> int:
        """How often things are done in turn."""
        return 3 if self.quick else 5

    @property
    def weights(self) -> Path:
        """YuNet's."""
        return needed(self.material / "detectors" / "face_detection_yunet_2023mar.onnx")

    @property
    def settings(self) -> FileSettings:
        """Of a recorded file: as by default, with YuNet, and with its table and timeline alone."""
        detector = DetectorSettings(type="yunet", weights=self.weights)
        return FileSettings(detector=detector, outputs=OutputSettings(video=False, report=False, plot=False))

    def clip(self, name: str) -> Path:
        """A real clip."""
        return needed(self.material / "clips" / f"{name}.mp4")


def needed(path: Path) -> Path:
    """A file that may not be redistributed; raises `Unmeasured` where it is not here."""
    if not path.exists():
        raise NotMeasurable(f"needs {path.name}, which is not redistributable; name its folder in FER_STREAM_TEST_DATA")
    return path


def cores(count: int) -> list[int]:
    """The first of the cores that this process may use; raises `Unmeasured` where they are fewer."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < count:
        raise NotMeasurable(f"needs {count} cores, there is {len(found)}")
    return found[:count]


@contextmanager
def pinned(to: Sequence[int]) -> Iterator[None]:
    """Run on these cores alone, with all threads and processes that are begun within."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
