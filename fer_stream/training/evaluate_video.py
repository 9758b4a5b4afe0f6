"""Evaluation of labels on real video: clips with known expressions, and the labels of a program for them.

truth.csv has the columns clip, person, label, start_s, end_s and faces, with one row per stretch: in the video
`clip`, from `start_s` to `end_s`, the face of `person` shows `label`. With `faces` = `main` only the largest face of
each frame counts, with `all` every face counts.

All shares are shares of the time in which such a face was found. The share of a group of stretches is the mean over
its stretches, so that long clips do not dominate.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fer_stream.errors import SourceNotFound, UnreadableSource
from fer_stream.records import F64, LABELS, UNKNOWN, LabelledFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

TRUTH = "truth.csv"
"""Name of the table in a folder of clips."""
JSON, MARKDOWN = "video.json", "video.md"
"""Names of the files that `write` creates."""
CALM = "neutral"
"""Label of people who are calm or simply talk; all other labels are expressions."""

_COLUMNS = ("clip", "person", "label", "start_s", "end_s", "faces")
_RESAMPLES = 4000
_SEED = 2013
_INTERVAL_PERCENTILES = (2.5, 97.5)
_SECONDS_PER_MINUTE = 60
# Smaller shares would appear as 0 % and are omitted from the Markdown.
_MIN_SHOWN_SHARE = 0.005

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a clip, in media seconds, with a known label of the largest face (`main`) or of `all` faces."""

    clip: str
    person: str
    label: str
    start_s: float
    end_s: float
    faces: Literal["main", "all"]


@dataclass(frozen=True, slots=True)
class ScoredFace:
    """Face in one frame: its person, the area of its box in px², and its label."""

    person: str
    area_px: float
    label: str


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """Frame of a clip at media time `time_s` in seconds, with the faces found in it."""

    time_s: float
    faces: tuple[ScoredFace, ...]


@dataclass(frozen=True, slots=True)
class StretchScore:
    """Score of one stretch.

    `face_s` is the face time in seconds. `right`, `unknown` and `wrong` are shares of it that sum to 1, or all 0 if
    no face was found. `labels` has the shares of all labels that occurred. `changes` counts label changes of a face
    from one frame to the next.
    """

    stretch: Stretch
    face_s: float
    right: float
    unknown: float
    wrong: float
    labels: dict[str, float]
    changes: int


@dataclass(frozen=True, slots=True)
class GroupScore:
    """Mean over a group of stretches: `stretches` of them had a face, `without_face` had none.

    Intervals are 95 % intervals of a bootstrap over the persons. `labels` has the mean shares of all labels.
    """

    stretches: int
    without_face: int
    persons: int
    right: float
    right_interval: Interval
    unknown: float
    unknown_interval: Interval
    wrong: float
    wrong_interval: Interval
    labels: dict[str, float]
    changes_per_minute: float
    changes_interval: Interval

    @property
    def summary(self) -> str:
        """Shares of right, unknown and wrong in percent, such as `66 / 15 / 19`."""
        return " / ".join(f"{100 * share:.0f}" for share in (self.right, self.unknown, self.wrong))


@dataclass(frozen=True, slots=True)
class VideoEvaluation:
    """Result of `score`: by group (`expressions`, `calm` and each label that occurs), and by stretch."""

    groups: dict[str, GroupScore]
    stretches: tuple[StretchScore, ...]


def read_truth(path: Path) -> list[Stretch]:
    """Read the stretches of a truth.csv.

    Raises `SourceNotFound` if the file does not exist, and `UnreadableSource` for other columns or invalid values.
    """
    stretches = [_stretch(row, f"{path}, row {number}") for number, row in enumerate(_rows(path, _COLUMNS), start=2)]
    if not stretches:
        raise UnreadableSource(f"{path} has no stretches. Add a row for each, with {', '.join(_COLUMNS)}.")
    return stretches


def read_table(path: Path) -> list[ScoredFrame]:
    """Read the frames of a NAME.frames.csv, written by fer-stream or by another tool in the same format.

    Uses the columns time_s, person_id, x1, y1, x2, y2 and label; a row without a label is a frame without a face.
    Raises `SourceNotFound` and `UnreadableSource` as `read_truth` does.
    """
    frames: dict[float, list[ScoredFace]] = {}
    columns = ("time_s", "person_id", "x1", "y1", "x2", "y2", "label")
    for number, row in enumerate(_rows(path, columns), start=2):
        try:
            faces = frames.setdefault(float(row["time_s"]), [])
            if row["label"]:
                x1, y1, x2, y2 = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
                faces.append(ScoredFace(row["person_id"], _area_px((x1, y1, x2, y2)), row["label"]))
        except ValueError as error:
            raise UnreadableSource(
                f"{path}, row {number}: {error}. Expected the format of NAME.frames.csv of fer-stream."
            ) from error
    return [ScoredFrame(time_s, tuple(faces)) for time_s, faces in sorted(frames.items())]


def scored_frames(frames: Iterable[LabelledFrame]) -> list[ScoredFrame]:
    """Convert the final frames of a clip to the input of `score`."""
    return [
        ScoredFrame(
            frame.time_s,
            tuple(ScoredFace(str(face.person_id), _area_px(face.xyxy), face.label) for face in frame.faces),
        )
        for frame in frames
    ]


def score(truth: Sequence[Stretch], frames_of: Callable[[str], Sequence[ScoredFrame]]) -> VideoEvaluation:
    """Score labels against the truth. `frames_of` returns all frames of a clip in order; called once per clip."""
    clips = {clip: frames_of(clip) for clip in dict.fromkeys(stretch.clip for stretch in truth)}
    scores = tuple(_score_stretch(stretch, clips[stretch.clip]) for stretch in truth)
    groups = {
        "expressions": [score for score in scores if score.stretch.label != CALM],
        "calm": [score for score in scores if score.stretch.label == CALM],
        **{label: [score for score in scores if score.stretch.label == label] for label in LABELS},
    }
    return VideoEvaluation({name: _score_group(group) for name, group in groups.items() if group}, scores)


def write(evaluation: VideoEvaluation, title: str, settings: Mapping[str, object] | None, out: Path) -> Path:
    """Write video.json and video.md into the folder `out`; returns the path of the Markdown.

    `settings` are those of the analysis, None if tables of another tool were read.
    """
    out.mkdir(parents=True, exist_ok=True)
    content = {"title": title, **asdict(evaluation), "settings": settings}
    (out / JSON).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    path = out / MARKDOWN
    path.write_text(_markdown(evaluation, title), encoding="utf-8")
    return path


def _score_stretch(stretch: Stretch, frames: Sequence[ScoredFrame]) -> StretchScore:
    label_s: dict[str, float] = {}
    previous: dict[str, str] = {}
    changes = 0
    for frame, duration_s in zip(frames, _durations_s(frames), strict=True):
        if not stretch.start_s <= frame.time_s < stretch.end_s:
            continue
        faces = frame.faces
        if stretch.faces == "main" and faces:
            faces = (max(faces, key=lambda face: face.area_px),)
        for face in faces:
            label_s[face.label] = label_s.get(face.label, 0.0) + duration_s
            person = "main" if stretch.faces == "main" else face.person
            changes += previous.setdefault(person, face.label) != face.label
            previous[person] = face.label
    face_s = sum(label_s.values())
    shares = {label: each_s / face_s for label, each_s in sorted(label_s.items(), key=lambda item: -item[1])}
    right, unknown = shares.get(stretch.label, 0.0), shares.get(UNKNOWN, 0.0)
    wrong = sum(share for label, share in shares.items() if label not in (stretch.label, UNKNOWN))
    return StretchScore(stretch, face_s, right, unknown, wrong, shares, changes)


def _durations_s(frames: Sequence[ScoredFrame]) -> list[float]:
    """Return the duration of each frame: until the next one; the last frame repeats the previous duration."""
    times = [frame.time_s for frame in frames]
    durations = [after - before for before, after in pairwise(times)]
    return [*durations, durations[-1] if durations else 1.0] if times else []


def _score_group(scores: Sequence[StretchScore]) -> GroupScore:
    with_face = [score for score in scores if score.face_s]
    persons = list(dict.fromkeys(score.stretch.person for score in with_face))
    person_index = np.array([persons.index(score.stretch.person) for score in with_face], np.int64)
    shares = np.array([(score.right, score.unknown, score.wrong, 1.0) for score in with_face]).reshape(-1, 4)
    times = np.array([(score.changes, score.face_s / _SECONDS_PER_MINUTE) for score in with_face]).reshape(-1, 2)
    sums = np.zeros((len(persons), 6))
    np.add.at(sums, person_index, np.concatenate([shares, times], axis=1))
    labels = dict.fromkeys(label for score in with_face for label in score.labels)
    means = {label: sum(score.labels.get(label, 0.0) for score in with_face) / len(with_face) for label in labels}
    right, unknown, wrong, changes = _means(sums.sum(axis=0))
    low, high = _bootstrap(sums)
    intervals = [(float(lower), float(upper)) for lower, upper in zip(low, high, strict=True)]
    return GroupScore(
        stretches=len(with_face),
        without_face=len(scores) - len(with_face),
        persons=len(persons),
        right=right,
        right_interval=intervals[0],
        unknown=unknown,
        unknown_interval=intervals[1],
        wrong=wrong,
        wrong_interval=intervals[2],
        labels=dict(sorted(means.items(), key=lambda item: -item[1])),
        changes_per_minute=changes,
        changes_interval=intervals[3],
    )


def _means(sums: F64) -> tuple[float, float, float, float]:
    """Return mean shares and changes per minute from sums of right, unknown, wrong, stretches, changes, minutes."""
    right, unknown, wrong, stretches, changes, minutes = sums.tolist()
    n = max(stretches, 1)
    return right / n, unknown / n, wrong / n, changes / minutes if minutes else 0.0


def _bootstrap(sums: F64) -> F64:
    """Return 95 % bounds of `_means`, float64 (2, 4), over resampled persons; `sums` is float64 (persons, 6)."""
    if not len(sums):
        return np.zeros((2, 4))
    samples = np.random.default_rng(_SEED).integers(0, len(sums), (_RESAMPLES, len(sums)))
    means = np.array([_means(sample) for sample in sums[samples].sum(axis=1)])
    return np.asarray(np.percentile(means, _INTERVAL_PERCENTILES, axis=0), np.float64)


def _area_px(xyxy: Any) -> float:
    x1, y1, x2, y2 = map(float, xyxy)
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)


def _rows(path: Path, columns: Sequence[str]) -> list[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise UnreadableSource(f"{path} has no column {', '.join(missing)}. Expected {', '.join(columns)}.")
            return [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except FileNotFoundError as error:
        raise SourceNotFound(
            f"{path} does not exist. Expected a table with the columns {', '.join(columns)}."
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnreadableSource(f"{path} is not a readable CSV file: {error}.") from error


def _stretch(row: Mapping[str, str], where: str) -> Stretch:
    try:
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
    except ValueError as error:
        raise UnreadableSource(f"{where}: start_s and end_s must be seconds of the clip: {error}.") from error
    if not 0 <= start_s < end_s:
        raise UnreadableSource(f"{where}: expected 0 ≤ start_s < end_s, received {start_s:g} and {end_s:g}.")
    if row["label"] not in LABELS:
        raise UnreadableSource(f"{where}: label must be one of {', '.join(LABELS)}, received {row['label']!r}.")
    faces = row["faces"]
    if faces not in ("main", "all"):
        raise UnreadableSource(f"{where}: faces must be main or all, received {faces!r}.")
    if not row["clip"]:
        raise UnreadableSource(f"{where}: clip is empty. Enter the file name of the video.")
    return Stretch(row["clip"], row["person"] or row["clip"], row["label"], start_s, end_s, faces)  # type: ignore[arg-type]


def _markdown(evaluation: VideoEvaluation, title: str) -> str:
    without_face = sum(not score.face_s for score in evaluation.stretches)
    head = ("group", "stretches", "persons", "right", "unknown", "wrong", "label changes per minute", "labels")
    parts = [
        f"# {title}",
        "Shares of the time in which a face was found, as the mean over stretches. Intervals are 95 % intervals of a "
        "bootstrap over the persons.",
        _table(head, [_group_row(name, group) for name, group in evaluation.groups.items()]),
    ]
    if without_face:
        parts.append(f"No face was found in {without_face} stretches; they are not part of any share.")
    columns = ("clip", "from", "to", "truth", "face time", "right", "unknown", "wrong", "labels")
    parts += ["## Stretches", _table(columns, [_stretch_row(score) for score in evaluation.stretches])]
    return "\n\n".join(parts) + "\n"


def _group_row(name: str, group: GroupScore) -> tuple[str, ...]:
    low, high = group.changes_interval
    return (
        name,
        str(group.stretches),
        str(group.persons),
        _share_text(group.right, group.right_interval),
        _share_text(group.unknown, group.unknown_interval),
        _share_text(group.wrong, group.wrong_interval),
        f"{group.changes_per_minute:.1f} ({low:.1f} to {high:.1f})",
        _labels_text(group.labels),
    )


def _stretch_row(score: StretchScore) -> tuple[str, ...]:
    stretch = score.stretch
    shares = (f"{share:.0%}" if score.face_s else "–" for share in (score.right, score.unknown, score.wrong))
    times = (f"{time_s:g} s" for time_s in (stretch.start_s, stretch.end_s))
    return (stretch.clip, *times, stretch.label, f"{score.face_s:.1f} s", *shares, _labels_text(score.labels))


def _share_text(share: float, interval: Interval) -> str:
    return f"{share:.1%} ({interval[0]:.0%} to {interval[1]:.0%})"


def _labels_text(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in shares.items() if share >= _MIN_SHOWN_SHARE)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))
