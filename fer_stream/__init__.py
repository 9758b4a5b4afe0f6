"""Real-time facial emotion recognition: per-person emotion timelines from videos, images and cameras.

    from fer_stream import analyze
    analysis = analyze("talk.mp4")
    analysis.to_dataframe()

Importing this package loads no heavy library: the names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_stream.api import Analysis, analyze
    from fer_stream.config.settings import FileSettings
    from fer_stream.errors import FerStreamError
    from fer_stream.records import LABELS, UNKNOWN, EmotionTimeline, Segment

__version__ = "0.1.0"

_MODULES = {
    "Analysis": "fer_stream.api",
    "analyze": "fer_stream.api",
    "FileSettings": "fer_stream.config.settings",
    "FerStreamError": "fer_stream.errors",
    "LABELS": "fer_stream.records",
    "UNKNOWN": "fer_stream.records",
    "EmotionTimeline": "fer_stream.records",
    "Segment": "fer_stream.records",
}

__all__ = [
    "LABELS",
    "UNKNOWN",
    "Analysis",
    "EmotionTimeline",
    "FerStreamError",
    "FileSettings",
    "Segment",
    "__version__",
    "analyze",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fer_stream' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
