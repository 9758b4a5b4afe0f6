"""Results of earlier runs: which of them can be kept, and why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fer_stream.errors import OutputExists
from fer_stream.outputs.atomic_file import REPLACE_REMEDY
from fer_stream.outputs.registry import EXPORTS, OUTPUTS, Kind, result_paths
from fer_stream.outputs.timeline_json import TIMELINE_FORMAT, TIMELINE_VERSION

Existing = Literal["skip", "error", "replace"]
"""Treatment of existing results. `skip` keeps those of the same file, settings and versions; any others are an
error. With `error`, all are."""

_TIMELINE_SUFFIX = OUTPUTS["timeline"].suffixes[0][1]

# Keys of timeline.json that must be equal, and settings that only select outputs.
_IDENTITY = ("detector", "backend", "versions", "settings")
_SELECTIONS = frozenset(f"settings.outputs.{name}" for name in (*OUTPUTS, "export"))

# Maximum number of differences in an error message.
_MAX_DIFFERENCES = 3


@dataclass(frozen=True, slots=True)
class KeptResults:
    """Results of an earlier run that a new run keeps, and the kind of their source."""

    paths: frozenset[Path]
    kind: Kind


def find_kept(
    stem: Path, identity: Callable[[], Mapping[str, Any]], *, exports: Collection[str] = ()
) -> KeptResults | None:
    """Return the results of an earlier run, including `exports`, that can be kept; None if there are none.

    `identity` returns the keys `source.sha256`, `detector`, `backend`, `model.sha256`, `versions` and `settings` of
    the timeline.json that a run would write now. Raises `OutputExists` if they differ, or if results are incomplete
    or of unknown origin.
    """
    present = [path for path in result_paths(stem, exports) if path.exists() or path.is_symlink()]
    if not present:
        return None
    path = stem.with_name(f"{stem.name}.{_TIMELINE_SUFFIX}")
    if other := next((path for path in present if not path.is_file()), None):
        raise OutputExists(f"{other} exists and is not a file. Rename it, or choose another directory with --out.")
    if path not in present:
        raise OutputExists(f"{present[0]} exists, but no {path.name} that describes it. {REPLACE_REMEDY}")
    earlier = _read(path)
    if earlier["stopped"] is not None:
        raise OutputExists(f"{path} is incomplete ({earlier['stopped']}). {REPLACE_REMEDY}")
    differences = list(_differences(earlier["identity"], _flat_identity(identity())))
    if differences:
        shown = "; ".join(differences[:_MAX_DIFFERENCES])
        more = f"; and {len(differences) - _MAX_DIFFERENCES} more" if len(differences) > _MAX_DIFFERENCES else ""
        raise OutputExists(f"{path} is the result of another run: {shown}{more}. {REPLACE_REMEDY}")
    return KeptResults(frozenset(present), earlier["kind"])


def remove_results(stem: Path, keep: Collection[Path] = ()) -> None:
    """Remove the results `<stem>.<suffix>` except `keep` and exports, which a user may have edited.

    timeline.json is always removed, and first: without it, the others do not count as results.
    """
    timeline = stem.with_name(f"{stem.name}.{_TIMELINE_SUFFIX}")
    for path in [timeline, *result_paths(stem)]:
        if path == timeline or path not in keep:
            with suppress(OSError):
                path.unlink()


def remove_interrupted(stem: Path) -> None:
    """Remove the results of an interrupted run, including its exports."""
    for path in result_paths(stem, EXPORTS):
        with suppress(OSError):
            path.unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        if (document["format"], document["version"]) == (TIMELINE_FORMAT, TIMELINE_VERSION):
            return {
                "stopped": document["analysed"]["stopped"],
                "kind": document["source"]["kind"],
                "identity": _flat_identity(document),
            }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    raise OutputExists(f"{path} is not a timeline.json of this version of fer-stream. {REPLACE_REMEDY}")


def _flat_identity(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that must be equal, as JSON, by their dotted keys."""
    values: dict[str, Any] = {
        "source.sha256": document["source"].get("sha256"),
        "model.sha256": document["model"]["sha256"],
        **{key: document.get(key) for key in _IDENTITY},
    }
    return {key: json.dumps(value) for key, value in _flatten(values) if key not in _SELECTIONS}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differences(earlier: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Describe the keys whose values differ: `settings.fps is 5.0 and was null`."""
    for key in dict.fromkeys((*earlier, *now)):
        before, after = earlier.get(key, "not recorded"), now.get(key, "not recorded")
        if before == after:
            continue
        yield "the file has other contents" if key == "source.sha256" else f"{key} is {after} and was {before}"
