"""Console output of the command line: progress on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import typer
from rich.console import Console as Terminal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from fer_stream.errors import OutputError
from fer_stream.formatting import format_labels, format_time, pluralize
from fer_stream.training.progress import DatasetStats, Epoch, Step

if TYPE_CHECKING:
    from fer_stream import pipeline
    from fer_stream.capture.discovery import Discovery
    from fer_stream.files import FileResult, FileTask
    from fer_stream.pool import Outcome
    from fer_stream.records import DecodeErrors, PersonSummary, SourceInfo


class _Fps(ProgressColumn):
    """Analysed frames per second. Speed and completion of the task are in seconds of media time."""

    def render(self, task: Task) -> Text:
        if not (task.speed and task.completed):
            return Text("")
        return Text(f"{task.speed * task.fields['frames'] / task.completed:.0f} fps")


class Console:
    """Progress bars, if stderr is a terminal, a summary of each of `files` files, and totals."""

    def __init__(self, files: int, *, quiet: bool) -> None:
        self._files = files
        self._states: Counter[str] = Counter()
        self._quiet = quiet
        self._tasks: dict[FileTask, TaskID] = {}
        # Read before the bars redirect stdout, which may be closed.
        self._encoding = getattr(sys.stdout, "encoding", "utf-8")
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            _Fps(),
            TimeRemainingColumn(),
            console=Terminal(stderr=True),
            disable=quiet or not sys.stderr.isatty(),
            transient=True,
            # Prints results above the bars on a terminal; a redirected stdout must get them unchanged.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, task: FileTask, info: SourceInfo, progress: pipeline.Progress) -> None:
        """Advance the bar of `task` by media time, because not every frame is necessarily analysed."""
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task.label, total=info.length_s, frames=0)
        self._bars.update(self._tasks[task], completed=progress.last_s - info.start_s, frames=progress.frames)

    def show(self, outcome: Outcome) -> int:
        """Print the outcome of a task and return its exit code."""
        if outcome.task in self._tasks:
            self._bars.remove_task(self._tasks.pop(outcome.task))
        self._states[outcome.state] += 1
        if outcome.error:
            typer.echo(f"fer-stream: {outcome.error}", err=True)
        if outcome.traceback:
            typer.echo(outcome.traceback, err=True)
        lines: Iterable[str] = ()
        if outcome.result is not None:
            lines = _summary_lines(outcome.task, outcome.result)
        elif outcome.kept and self._files == 1:
            lines = (f"{outcome.task.label}: already done", _results_line(outcome.kept))
        return self._print(lines, str(outcome.task.path)) or outcome.exit_code

    def show_totals(self) -> int:
        """Print how many of several files ended how, and return an exit code."""
        if self._files == 1:
            return 0
        counts = {state: self._states[state] for state in ("already done", "new", "failed", "interrupted")}
        counts["not started"] = self._files - self._states.total()
        return self._print(
            [", ".join(f"{number} {state}" for state, number in counts.items() if number)], "all files"
        )

    def _print(self, lines: Iterable[str], what: str) -> int:
        text = "\n".join(lines)
        if self._quiet or not text:
            return 0
        try:
            typer.echo(self._printable(text))
        except OSError as error:
            typer.echo(
                f"fer-stream: Cannot print the summary of {what} to standard output: {error.strerror}.", err=True
            )
            return OutputError.exit_code
        return 0

    def _printable(self, text: str) -> str:
        """Return `text` with escapes for characters that stdout cannot encode, as in names that are not UTF-8."""
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)


def print_messages(found: Discovery) -> None:
    """Print to stderr which files in folders were skipped."""
    for message in found.messages():
        typer.echo(f"fer-stream: {message}", err=True)


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar for a download if stderr is a terminal; yield a function of bytes received and total bytes."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Terminal(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(name)
        yield lambda received, total: bar.update(task, completed=received, total=total)


class TrainingBar:
    """Progress of a training: a bar if stderr is a terminal, and a line per epoch."""

    def __init__(self, epochs: int, *, quiet: bool) -> None:
        self._quiet = quiet
        self._epochs = epochs
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=Terminal(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=float(epochs))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def progress(self, message: DatasetStats | Epoch | Step) -> None:
        """Advance the bar, or print a line about the data or an epoch."""
        if isinstance(message, Step):
            self._bar.update(self._task, completed=message.epoch + message.step / message.steps)
        elif self._quiet:
            return
        elif isinstance(message, DatasetStats):
            typer.echo(_dataset_line(message), err=True)
        else:
            text = f"epoch {message.epoch + 1}/{self._epochs}: loss {message.loss:.3f}"
            typer.echo(f"{text}, PublicTest {message.accuracy:.2%}, {message.seconds:.0f} s", err=True)


def _dataset_line(stats: DatasetStats) -> str:
    copies = f"{stats.duplicates} of them copies of a test image, {'left out' if stats.dropped else 'kept'}"
    shared = stats.shared_test_images
    test_copies = f"; {shared} PrivateTest images are copies of PublicTest images" if shared else ""
    return f"{stats.images} training images, {copies}{test_copies}"


def _summary_lines(task: FileTask, result: FileResult) -> Iterator[str]:
    summary = result.summary
    people = pluralize(len(summary.people), "person", "people")
    source, end_s = summary.source, summary.source.start_s + summary.duration_s
    part = f" ({format_time(source.start_s)} to {format_time(end_s)})" if source.start_s or source.end_s else ""
    frames = f", {pluralize(summary.frames, 'frame')} in {format_time(summary.duration_s)}{part}"
    stopped = f" ({summary.stopped})" if summary.stopped else ""
    frames = "" if summary.source.kind == "image" else frames
    yield f"{task.label}: {people}{frames}, detector {summary.detector}{stopped}"
    if summary.source.kind == "image" and (pictures := summary.source.frames or 1) > 1:
        yield f"  analysed: 1 of {pictures} pictures in the file. Save the others as separate files to analyse them."
    yield from map(_person_line, summary.people)
    if summary.smallest_face_px is not None:
        yield f"  smallest detectable face: {summary.smallest_face_px:.0f} px"
    yield from _decode_error_lines(summary.decode_errors)
    yield _results_line(result.outputs)


def _results_line(paths: Iterable[Path]) -> str:
    return "  results: " + ", ".join(map(str, paths))


def _person_line(person: PersonSummary) -> str:
    is_timed = any(segment.end_s > segment.start_s for segment in person.segments)
    span = f", {format_time(person.first_s)} to {format_time(person.last_s)}" if is_timed else ""
    return f"  person {person.person_id}{span}: {format_labels(person)}"


def _decode_error_lines(errors: DecodeErrors) -> Iterator[str]:
    if errors.packets:
        yield f"  damaged: {pluralize(errors.packets, 'packet')} could not be decoded ({errors.reason})"
    if errors.truncated:
        yield "  damaged: the file ends before its declared length"
