"""What the command line shows a person: progress on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

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
from fer_stream.files import FileTask, FileResult
from fer_stream.formatting import format_time, pluralize
from fer_stream import pipeline
from fer_stream.pool import Outcome
from fer_stream.records import DecodeErrors, PersonSummary, SourceInfo
from fer_stream.training.progress import Begun, Epoch, Step


class _Fps(ProgressColumn):
    """Frames looked at a second; the speed of a task is in seconds of media."""

    def render(self, task: Task) -> Text:
        if not (task.speed and task.completed):
            return Text("")
        return Text(f"{task.speed * task.fields['frames'] / task.completed:.0f} fps")


class Console:
    """Shows how far each file is, where stderr is a terminal, and says what came of it."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._tasks: dict[str, TaskID] = {}
        # Asked before the bars redirect it; it may be closed.
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
            # Over the bars, where both are on one screen; a file is to get its results.
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, job: FileTask, info: SourceInfo, run: pipeline.Progress) -> None:
        """Move the bar of `job`; by media time, as not every frame may be looked at."""
        if job.name not in self._tasks:
            self._tasks[job.name] = self._bars.add_task(job.path.name, total=_length_s(info), frames=0)
        self._bars.update(self._tasks[job.name], completed=run.last_s, frames=run.frames)

    def show(self, outcome: Outcome) -> int:
        """Say how a job ended; return its exit code."""
        if outcome.job.name in self._tasks:
            self._bars.remove_task(self._tasks.pop(outcome.job.name))
        if outcome.result is None:
            typer.echo(f"fer-stream: {outcome.error}", err=True)
            if outcome.trace:
                typer.echo(outcome.trace, err=True)
        elif not self._quiet:
            return self._tell(outcome.job, outcome.result)
        return outcome.exit_code

    def _tell(self, job: FileTask, result: FileResult) -> int:
        try:
            typer.echo(self._printable("\n".join(_lines(job, result))))
        except OSError as error:
            said = f"Cannot say what came of {job.path} on the standard output: {error.strerror}."
            typer.echo(f"fer-stream: {said}", err=True)
            return OutputError.exit_code
        return 0

    def _printable(self, text: str) -> str:
        """`text` with escapes for what the standard output cannot show, as in a file name that is not UTF-8."""
        return text.encode(self._encoding, "backslashreplace").decode(self._encoding)


@contextmanager
def download_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for a download, where stderr is a terminal; gives what to call with bytes done and bytes in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Terminal(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(name)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class TrainingBar:
    """Shows how far a training is: a bar where stderr is a terminal, and a line an epoch everywhere."""

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

    def progress(self, news: Begun | Epoch | Step) -> None:
        """Move the bar; say what is learned from, and how an epoch went."""
        if isinstance(news, Step):
            self._bar.update(self._task, completed=news.epoch + news.step / news.steps)
        elif self._quiet:
            return
        elif isinstance(news, Begun):
            typer.echo(_begun_line(news), err=True)
        else:
            text = f"epoch {news.epoch + 1}/{self._epochs}: loss {news.loss:.3f}, PublicTest {news.accuracy:.2%}"
            typer.echo(f"{text}, {news.seconds:.0f} s", err=True)


def _begun_line(news: Begun) -> str:
    copies = f"{news.copies} of them copies of a test image, {'left out' if news.dropped else 'kept'}"
    shared = f"; {news.shared} PrivateTest images are copies of PublicTest images" if news.shared else ""
    return f"{news.images} training images, {copies}{shared}"


def _length_s(info: SourceInfo) -> float | None:
    if info.duration_s:
        return info.duration_s
    return info.frames / info.fps if info.frames and info.fps else None


def _lines(job: FileTask, result: FileResult) -> Iterator[str]:
    summary = result.summary
    seen = pluralize(len(summary.people), "person", "people")
    length = (
        "" if summary.source.kind == "image" else f", {pluralize(summary.frames, 'frame')} in {format_time(summary.duration_s)}"
    )
    stopped = f" ({summary.stopped})" if summary.stopped else ""
    yield f"{job.path.name}: {seen}{length}{stopped}"
    yield from map(_person_line, summary.people)
    yield from _damage_lines(summary.decode_errors)
    yield "  results: " + ", ".join(str(path) for path in result.outputs)


def _person_line(person: PersonSummary) -> str:
    shares = ", ".join(f"{label} {share:.0%}" for label, share in person.shares.items())
    return f"  person {person.person_id}, {format_time(person.first_s)} to {format_time(person.last_s)}: {shares}"


def _damage_lines(damage: DecodeErrors) -> Iterator[str]:
    if damage.packets:
        yield f"  damaged: {pluralize(damage.packets, 'packet')} could not be decoded ({damage.reason})"
    if damage.truncated:
        yield "  damaged: the file ends before its container says it does"
