"""Command `run`: recorded videos and still images."""

from __future__ import annotations

import os
import select
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from enum import Enum, StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.cli.models import Backend, BackendOption, ModelSize, OfflineOption, SizeOption
from fer_stream.faces.registry import DETECTORS
from fer_stream.outputs.registry import EXPORTS

if TYPE_CHECKING:
    from fer_stream.config.settings import FileSettings


if TYPE_CHECKING:
    Detector = str
else:  # mypy only accepts literal members
    Detector = StrEnum("Detector", {name: name for name in ("auto", *DETECTORS)})


ExportOption = typer.Option("--export", help=f"Also write these formats, comma-separated: {', '.join(EXPORTS)}.")


class Existing(Enum):
    """Treatment of existing results."""

    skip = "skip"
    error = "error"
    replace = "replace"


class Redact(StrEnum):
    """Redaction of faces in the annotated video."""

    none = "none"
    blur = "blur"
    black = "black"


class Rotate(StrEnum):
    """Clockwise rotation in degrees."""

    quarter = "90"
    half = "180"
    three_quarters = "270"


def _time(text: str) -> float:
    from fer_stream.formatting import parse_time

    try:
        return parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


_EPILOG = """\b
Examples:
  fer-stream run talk.mp4                        write results to ./fer-stream-out
  fer-stream run talks/ 'more/*.mkv' --out res   a folder and a glob, in parallel
  fer-stream run photo.jpg                       a still image
  fer-stream run talk.mp4 --fps 5 --no-video     5 frames per second, no annotated video
  fer-stream run talk.mp4 --redact blur          blur all faces in the video
  fer-stream run talk.mp4 --start 1:30 --end 2:00    only these 30 seconds
  curl -s https://host/talk.mp4 | fer-stream run -   standard input, as stdin.*

\b
Exit codes:
  0  success                              1  unexpected error (please report)
  2  invalid command line or settings     3  a source cannot be read
  4  models are missing or invalid        5  a result cannot be written
  8  a limit of memory or threads is too low
  130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP: results so far are NAME.interrupted.*
If several sources fail, the exit code is that of the first; the others are still processed.
Run the same command again to continue: files that are done are skipped if the file, the settings and
the versions are the same; otherwise existing results are an error.
"""


def run(
    sources: Annotated[
        list[str],
        typer.Argument(help="Video files, still images, folders, globs, or - for standard input.", metavar="SOURCE"),
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("fer-stream-out"),
    config: Annotated[Path | None, typer.Option(help="YAML settings; command-line options take precedence.")] = None,
    fps: Annotated[float | None, typer.Option(help="Maximum frames analysed per second (default: all).")] = None,
    start: Annotated[
        float | None, typer.Option(parser=_time, metavar="TIME", help="Start of the analysis: seconds or hh:mm:ss.")
    ] = None,
    end: Annotated[
        float | None, typer.Option(parser=_time, metavar="TIME", help="End of the analysis: seconds or hh:mm:ss.")
    ] = None,
    rotate: Annotated[Rotate | None, typer.Option(help="Rotate pictures clockwise by these degrees.")] = None,
    detector: Annotated[Detector | None, typer.Option(help="Face detector.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Local weights file of the detector.")] = None,
    input_size: Annotated[
        int | None,
        typer.Option(
            min=64, max=4096, help="Long side in px at which faces are searched (default: depends on the frame size)."
        ),
    ] = None,
    model_size: Annotated[ModelSize | None, SizeOption] = None,
    backend: Annotated[Backend | None, BackendOption] = None,
    redact: Annotated[Redact | None, typer.Option(help="Redact faces in the annotated video.")] = None,
    redact_person: Annotated[list[int] | None, typer.Option(help="Redact only this person (repeatable).")] = None,
    thumbnails: Annotated[
        bool | None, typer.Option("--thumbnails", help="Show one face per person in the report.")
    ] = None,
    no_table: Annotated[bool, typer.Option("--no-table", help="Do not write NAME.frames.csv.")] = False,
    no_video: Annotated[bool, typer.Option("--no-video", help="Do not write the annotated video or image.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Do not write NAME.report.html.")] = False,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Do not write NAME.timeline.png.")] = False,
    export: Annotated[str | None, ExportOption] = None,
    offline: Annotated[bool, OfflineOption] = False,
    existing: Annotated[
        Existing, typer.Option(help="Existing results: skip files that are done, fail, or replace the results.")
    ] = Existing.skip,
    processes: Annotated[
        int | None, typer.Option("--workers", min=1, help="Number of parallel processes (default: one per core).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only print errors.")] = False,
) -> None:
    """Analyse recorded videos and still images."""
    from fer_stream.resource_limits import cores, ensure_limits

    ensure_limits(cores())  # before libraries are loaded that deadlock below the limits
    from fer_stream.config.loader import load
    from fer_stream.config.settings import FileSettings

    settings = (load(config, FileSettings) if config else FileSettings()).with_values(
        {
            "fps": fps,
            "start_s": start,
            "end_s": end,
            "rotate": int(rotate) if rotate else None,
            "detector.type": detector,
            "detector.weights": weights,
            "detector.input_size_px": input_size,
            "model.size": model_size,
            "model.backend": backend,
            "outputs.redact": redact,
            "outputs.redact_persons": tuple(redact_person) if redact_person else None,
            "outputs.thumbnails": thumbnails,
            "outputs.table": False if no_table else None,
            "outputs.video": False if no_video else None,
            "outputs.report": False if no_report else None,
            "outputs.plot": False if no_plot else None,
            "outputs.export": None if export is None else tuple(export.split(",")),
        }
    )
    from fer_stream.factory import print_to_stderr, select_detector

    notify = _ignore if quiet else print_to_stderr
    settings = settings.model_copy(
        update={"detector": select_detector(settings.detector, offline=offline, notify=notify)}
    )
    raise SystemExit(_run_files(sources, settings, out, existing, processes=processes, quiet=quiet))


def _ignore(line: str) -> None:
    """Print nothing."""


def _run_files(
    sources: list[str], settings: FileSettings, out: Path, existing: Existing, *, processes: int | None, quiet: bool
) -> int:
    from fer_stream.capture.discovery import discover
    from fer_stream.cli.console import Console, print_messages
    from fer_stream.files import FileTask
    from fer_stream.log import redact_secrets
    from fer_stream.outputs.atomic_file import create_output_dir
    from fer_stream.pool import process_files
    from fer_stream.resource_limits import cores

    with stop_on_signals() as stop, spooled(sources, stop) as arguments:
        if stop.is_set():
            return stop.exit_code
        found = discover(arguments)
        if not quiet:
            print_messages(found)
        create_output_dir(out)
        command = redact_secrets(shlex.join(["fer-stream", *sys.argv[1:]]))
        jobs = [
            FileTask(
                file.path,
                file.name,
                out / file.folder,
                existing.value,
                label=str(file.folder / file.path.name),
                command=command,
                recorded_path=STDIN if str(file.path) in arguments and str(file.path) not in sources else None,
            )
            for file in found.files
        ]
        at_once = processes or cores()
        with (
            Console(len(jobs), quiet=quiet) as console,
            closing(process_files(jobs, settings, workers=at_once, stop=stop, progress=console.progress)) as outcomes,
        ):
            codes = [console.show(outcome) for outcome in outcomes]
            codes.append(console.show_totals())
    return stop.exit_code or next(filter(None, codes), 0)


STDIN = "-"
"""Argument that stands for standard input."""

# Name of its temporary file and of its results.
_STDIN_NAME = "stdin"

_POLL_INTERVAL_S = 0.2
_CHUNK_BYTES = 1 << 20


@contextmanager
def spooled(arguments: Sequence[str], stop: Event) -> Iterator[list[str]]:
    """Yield `arguments` with `-` replaced by a temporary copy of standard input, which is removed at the end.

    Containers need seeking, and the annotated video needs a second pass.

    Copying ends early when `stop` is set. Raises `UnreadableSource` if standard input is a terminal or empty, and
    `OutputError` if the copy cannot be written.
    """
    if STDIN not in arguments:
        yield list(arguments)
        return
    with tempfile.TemporaryDirectory(prefix="fer-stream-") as folder:
        copy = Path(folder, _STDIN_NAME)
        _copy_stdin(copy, stop)
        yield [str(copy) if argument == STDIN else argument for argument in arguments]


def _copy_stdin(target: Path, stop: Event) -> None:
    from fer_stream.errors import OutputError, UnreadableSource

    descriptor = _stdin_descriptor()
    try:
        with target.open("wb", buffering=0) as file:
            while not stop.is_set():
                # A read that blocks would not notice the stop flag. On Windows, pipes cannot be waited for.
                if os.name != "nt" and not select.select([descriptor], [], [], _POLL_INTERVAL_S)[0]:
                    continue
                unwritten = memoryview(os.read(descriptor, _CHUNK_BYTES))
                if not unwritten:
                    break
                while unwritten:
                    unwritten = unwritten[file.write(unwritten) :]
    except OSError as error:
        raise OutputError(
            f"Cannot store standard input in {target.parent}: {error.strerror}. Set TMPDIR to a folder with "
            "more space, or pass a file instead of -."
        ) from error
    if not stop.is_set() and not target.stat().st_size:
        raise UnreadableSource("Standard input is empty. Check the command before the pipe.")


def _stdin_descriptor() -> int:
    from fer_stream.errors import UnreadableSource

    if sys.stdin is None or sys.stdin.closed:
        raise UnreadableSource("Standard input is closed. Pass a file, or pipe one to the command.")
    if sys.stdin.isatty():
        raise UnreadableSource("Standard input is a terminal. Pipe a file to the command, or pass its name.")
    return sys.stdin.fileno()


class Stop(Event):
    """Set by Ctrl-C, SIGTERM or SIGHUP; `exit_code` is 128 plus the number of the signal."""

    exit_code = 0


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Set the yielded event on the first Ctrl-C, SIGTERM or SIGHUP; raise `KeyboardInterrupt` on the second.

    An ignored SIGHUP, as under nohup, stays ignored.
    """
    stop = Stop()

    def handle(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.exit_code = 128 + number
        stop.set()

    from fer_stream.pool import STOP_SIGNALS

    handled = [
        number for number in STOP_SIGNALS if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    ]
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=_EPILOG)(run)
