"""NAME.timeline.json: metadata, and the segments of each person. docs/reference/formats.md describes the format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from fer_stream.outputs.atomic_file import FileOutput
from fer_stream.store.schemas import round_prob, round_time, segment_document

if TYPE_CHECKING:
    from fer_stream.outputs.registry import OutputContext
    from fer_stream.records import (
        DecodeErrors,
        FileSummary,
        LabelledFrame,
        ModelSpec,
        PersonSummary,
        Provenance,
        Segment,
        SourceInfo,
    )

TIMELINE_FORMAT = "fer-stream.timeline"
TIMELINE_VERSION = 1


class TimelineJson(FileOutput):
    """NAME.timeline.json: metadata of the run, and shares and segments of each person."""

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Do nothing: the document is made from the summary."""

    def finish(self, summary: FileSummary) -> None:
        """Write the document."""
        document = json.dumps(timeline_document(summary), indent=2, ensure_ascii=False, allow_nan=False)
        # Python reads a file name that is not valid UTF-8 as lone surrogates, which JSON can only contain escaped.
        self._output.write([document.encode("utf-8", "backslashreplace"), b"\n"])


def create(path: Path, context: OutputContext) -> TimelineJson:
    """Create the timeline of a file."""
    return TimelineJson(path, force=context.force)


def timeline_document(summary: FileSummary) -> dict[str, Any]:
    """Convert `summary` to the document of docs/reference/formats.md.

    Paths in settings are reduced to file names; that of the source is complete.
    """
    provenance = summary.provenance
    return {
        "format": TIMELINE_FORMAT,
        "version": TIMELINE_VERSION,
        "source": _source(summary.source, provenance),
        "analysed": {
            "at": _utc(provenance.analysed_at) if provenance else None,
            "command": provenance.command if provenance else None,
            "frames": summary.frames,
            "start_s": round_time(summary.source.start_s),
            "smallest_face_px": None if summary.smallest_face_px is None else round(summary.smallest_face_px, 1),
            "duration_s": round_time(summary.duration_s),
            "stopped": summary.stopped,
            "decode_errors": _decode_errors(summary.decode_errors),
        },
        "detector": summary.detector,
        "backend": summary.backend,
        "model": _model(summary.model),
        "versions": summary.versions,
        "settings": without_directories(summary.settings),
        "unconfirmed_faces": summary.unconfirmed_faces,
        "people": [_person(person) for person in summary.people],
    }


def _source(info: SourceInfo, provenance: Provenance | None) -> dict[str, Any]:
    return {
        "name": PurePath(info.name).name,
        "path": provenance.path if provenance else None,
        "size_bytes": provenance.size_bytes if provenance else None,
        "sha256": provenance.sha256 if provenance else None,
        "kind": info.kind,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "frames": info.frames,
        "duration_s": info.duration_s,
        "codec": info.codec,
        "pixel_format": info.pixel_format,
    }


def _utc(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _decode_errors(errors: DecodeErrors) -> dict[str, Any]:
    return {"packets": errors.packets, "reason": errors.reason, "truncated": errors.truncated}


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
        "person_id": person.person_id,
        "first_s": round_time(person.first_s),
        "last_s": round_time(person.last_s),
        "frames": person.frames,
        "shares": {label: round_prob(share) for label, share in person.shares.items()},
        "unknown_shares": {reason: round_prob(share) for reason, share in person.unknown_shares.items()},
        "segments": [_segment(segment) for segment in person.segments],
    }


def _segment(segment: Segment) -> dict[str, Any]:
    # The person is the parent object.
    return {key: value for key, value in segment_document(segment).items() if key != "person_id"}


def without_directories(value: object) -> Any:
    """Return `value` with paths as text and absolute paths reduced to their file names."""
    match value:
        case dict():
            return {key: without_directories(item) for key, item in value.items()}
        case list() | tuple():
            return [without_directories(item) for item in value]
        case PurePath() | str() if PurePath(value).is_absolute():
            return PurePath(value).name
        case PurePath():
            return str(value)
        case _:
            return value
