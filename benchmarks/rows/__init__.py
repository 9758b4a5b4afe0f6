"""Rows of the table: one module each, with functions that yield the lines. Each runs in its own process."""

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
    """Options of all rows. `quick` measures fewer rounds, with a wider spread."""

    quick: bool = False
    material: Path = FOLDER

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return 3 if self.quick else 5

    @property
    def weights(self) -> Path:
        """Weights of YuNet. Raises `NotMeasurable` if they are missing."""
        return require_file(self.material / "detectors" / "face_detection_yunet_2023mar.onnx")

    @property
    def settings(self) -> FileSettings:
        """Settings of a recorded file: defaults with YuNet, and only the table and the timeline as outputs."""
        detector = DetectorSettings(type="yunet", weights=self.weights)
        return FileSettings(detector=detector, outputs=OutputSettings(video=False, report=False, plot=False))

    def clip(self, name: str) -> Path:
        """Return the path of a real clip. Raises `NotMeasurable` if it is missing."""
        return require_file(self.material / "clips" / f"{name}.mp4")


def require_file(path: Path) -> Path:
    """Return the path of a file that cannot be redistributed. Raises `NotMeasurable` if it is missing."""
    if not path.exists():
        raise NotMeasurable(
            f"needs {path.name}, which is not redistributable: set FER_STREAM_TEST_DATA to its folder"
        )
    return path


def available_cores(count: int) -> list[int]:
    """Return the first `count` cores that this process can use. Raises `NotMeasurable` if there are fewer."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < count:
        raise NotMeasurable(f"needs {count} cores, {len(found)} available")
    return found[:count]


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Pin the process to these cores, with all threads and processes started meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
