"""NAME.frames.csv and NAME.timeline.json. Both formats are described in docs/reference/formats.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from fer_stream.outputs.atomic_file import AtomicFile
from fer_stream.records import (
    LABELS,
    DecodeErrors,
    Segment,
    FileSummary,
    LabelledFrame,
    ModelSpec,
    PersonSummary,
    SourceInfo,
)

COLUMNS = (
    "frame_index", "time_s", "person_id", "x1", "y1", "x2", "y2", "confidence", "quality", "quality_reason",
    *LABELS, "label",
)  # fmt: skip
"""The columns of NAME.frames.csv, in order."""

TIMELINE_FORMAT = "fer-stream.timeline"
TIMELINE_VERSION = 1

# No field can hold a comma or a quote, so plain formatting is CSV; it takes about half of csv.writer's time.
_HEADER = ",".join(COLUMNS) + "\n"
_FACE = "%d,%.6f,%d,%.2f,%.2f,%.2f,%.2f,%.4f,%.4f,%s," + "%.4f," * len(LABELS) + "%s\n"
_NO_FACE = "%d,%.6f" + "," * (len(COLUMNS) - 2) + "\n"


class FrameTable:
    """NAME.frames.csv: one row per frame and face, and one for a frame without a face."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._output = AtomicFile(path, force=force)
        with self._output.translate_errors():
            self._file = self._output.partial.open("w", encoding="ascii", newline="")
            self._file.write(_HEADER)

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Append the rows of `frames`, where others can read them at once."""
        with self._output.translate_errors():
            self._file.writelines(map(rows, frames))
            self._file.flush()

    def finish(self, summary: FileSummary) -> None:  # noqa: ARG002 - the rows say everything
        """Put the table in place."""
        with self._output.translate_errors():
            self._file.close()
        self._output.commit()

    def discard(self) -> None:
        """Leave nothing behind."""
        # What is still buffered may not fit on a full disk, and is not wanted.
        with suppress(OSError):
            self._file.close()
        self._output.discard()


def rows(frame: LabelledFrame) -> str:
    """The rows of one frame, in `COLUMNS`, each with its line end."""
    if not frame.faces:
        return _NO_FACE % (frame.index, frame.time_s)
    return "".join(
        _FACE
        % (
            frame.index, frame.time_s, face.person_id, *face.xyxy.tolist(), face.confidence,
            face.quality.score, face.quality.reason, *face.probs.tolist(), face.label,
        )
        for face in frame.faces
    )  # fmt: skip


class TimelineJson:
    """NAME.timeline.json: what the job was, and every person's segments."""

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._output = AtomicFile(path, force=force)

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Take note of nothing: the summary holds it all."""

    def finish(self, summary: FileSummary) -> None:
        """Write the document and put it in place."""
        document = json.dumps(timeline_document(summary), indent=2, ensure_ascii=False, allow_nan=False)
        # A file name that is no valid UTF-8 reaches Python as lone surrogates, which JSON can only hold escaped.
        self._output.write([document.encode("utf-8", "backslashreplace"), b"\n"])

    def discard(self) -> None:
        """Leave nothing behind."""
        self._output.discard()


def timeline_document(summary: FileSummary) -> dict[str, Any]:
    """`summary` as the JSON document of docs/reference/formats.md: no path of this machine is in it, only file names."""
    return {
        "format": TIMELINE_FORMAT,
        "version": TIMELINE_VERSION,
        "source": _source(summary.source),
        "analysed": {
            "frames": summary.frames,
            "duration_s": _time(summary.duration_s),
            "stopped": summary.stopped,
            "damage": _damage(summary.decode_errors),
        },
        "detector": summary.detector,
        "model": _model(summary.model),
        "versions": summary.versions,
        "settings": _without_folders(summary.settings),
        "unconfirmed_faces": summary.unconfirmed_faces,
        "people": [_person(person) for person in summary.people],
    }


def _source(info: SourceInfo) -> dict[str, Any]:
    return {
        "name": PurePath(info.name).name,
        "kind": info.kind,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "frames": info.frames,
        "duration_s": info.duration_s,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
    }


def _damage(damage: DecodeErrors) -> dict[str, Any]:
    return {"packets": damage.packets, "reason": damage.reason, "truncated": damage.truncated}


def _model(spec: ModelSpec) -> dict[str, Any]:
    return {
        "id": spec.model_id,
        "sha256": spec.sha256,
        "dataset": spec.dataset,
        "licence": spec.licence,
        "labels": list(spec.labels),
        "metrics": spec.metrics,
    }


def _person(person: PersonSummary) -> dict[str, Any]:
    return {
        "person": person.person_id,
        "first_s": _time(person.first_s),
        "last_s": _time(person.last_s),
        "frames": person.frames,
        "shares": {label: _share(share) for label, share in person.shares.items()},
        "segments": [segment_document(segment) for segment in person.segments],
    }


def segment_document(segment: Segment) -> dict[str, Any]:
    """`segment` as it stands in every JSON file."""
    return {
        "label": segment.label,
        "start_s": _time(segment.start_s),
        "end_s": _time(segment.end_s),
        "mean_prob": _share(segment.mean_prob),
    }


def _time(seconds: float) -> float:
    """As many decimals as the table has, so that times of the two files can be compared."""
    return round(float(seconds), 6)


def _share(fraction: float) -> float:
    return round(float(fraction), 4)


def _without_folders(value: object) -> Any:
    """`value` with every absolute path cut down to its file name, and every path written as text."""
    match value:
        case dict():
            return {key: _without_folders(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_folders(item) for item in value]
        case PurePath() | str() if PurePath(value).is_absolute():
            return PurePath(value).name
        case PurePath():
            return str(value)
        case _:
            return value
