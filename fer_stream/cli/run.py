"""Command `run`: recorded videos and still images."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.cli.models import Backend, BackendOption, ModelSize, SizeOption

if TYPE_CHECKING:
    from fer_stream.config import FileSettings


class Detector(StrEnum):
    """Which detector looks for faces."""

    auto = "auto"
    yunet = "yunet"
    blazeface = "blazeface"


class Redact(StrEnum):
    """How faces are covered in the annotated video."""

    none = "none"
    blur = "blur"
    black = "black"


_EPILOG = """\b
Examples:
  fer-stream run talk.mp4                        results into ./fer-stream-out
  fer-stream run talks/ 'more/*.mkv' --out res   a folder and a glob, side by side
  fer-stream run photo.jpg                       a still image
  fer-stream run talk.mp4 --fps 5 --no-video     five frames a second, no picture
  fer-stream run talk.mp4 --redact blur          nobody to be recognised in the video

\b
Exit codes:
  0  all done                             1  a fault that nobody foresaw
  2  command line or settings are wrong   3  a source could not be read
  4  models are missing or wrong          5  a result could not be written
  130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP: results are whole up to there.
Where several sources fail, the code is that of the first; the others go on.
"""


def run(
    sources: Annotated[
        list[str], typer.Argument(help="Video files, still images, folders, globs.", metavar="SOURCE...")
    ],
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("fer-stream-out"),
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here go before.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second to look at; by default every one.")] = None,
    detector: Annotated[Detector | None, typer.Option(help="Which detector looks for faces.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A local weights file for the detector.")] = None,
    model_size: Annotated[ModelSize | None, SizeOption] = None,
    backend: Annotated[Backend | None, BackendOption] = None,
    redact: Annotated[Redact | None, typer.Option(help="Cover the faces in the annotated video.")] = None,
    redact_person: Annotated[list[int] | None, typer.Option(help="Cover only this person; may be repeated.")] = None,
    thumbnails: Annotated[
        bool | None, typer.Option("--thumbnails", help="Show one face per person in the report.")
    ] = None,
    no_table: Annotated[bool, typer.Option("--no-table", help="Leave out NAME.frames.csv.")] = False,
    no_video: Annotated[bool, typer.Option("--no-video", help="Leave out the annotated video or picture.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave out NAME.report.html.")] = False,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Leave out NAME.timeline.png.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace results that are there already.")] = False,
    processes: Annotated[
        int | None, typer.Option("--workers", min=1, help="Files at a time; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Turn recorded videos and still images into emotion timelines."""
    from fer_stream.config import FileSettings
    from fer_stream.config.loader import load

    settings = (load(config, FileSettings) if config else FileSettings()).with_values(
        {
            "fps": fps,
            "detector.type": detector,
            "detector.weights": weights,
            "model.size": model_size,
            "model.backend": backend,
            "outputs.redact": redact,
            "outputs.redact_persons": tuple(redact_person) if redact_person else None,
            "outputs.thumbnails": thumbnails,
            "outputs.table": False if no_table else None,
            "outputs.video": False if no_video else None,
            "outputs.report": False if no_report else None,
            "outputs.plot": False if no_plot else None,
        }
    )
    raise SystemExit(_run_files(sources, settings, out, force=force, processes=processes, quiet=quiet))


def _run_files(
    sources: list[str], settings: FileSettings, out: Path, *, force: bool, processes: int | None, quiet: bool
) -> int:
    from fer_stream.capture.discovery import find_sources, output_names
    from fer_stream.cli.console import Console
    from fer_stream.files import FileJob, make_folder
    from fer_stream.pool import cores, run_jobs

    paths = find_sources(sources)
    make_folder(out)
    jobs = [FileJob(path, name, out, force) for path, name in zip(paths, output_names(paths), strict=True)]
    at_once = processes or cores()
    with (
        stop_on_signals() as stop,
        Console(quiet=quiet) as console,
        closing(run_jobs(jobs, settings, processes=at_once, stop=stop, progress=console.progress)) as outcomes,
    ):
        codes = [console.show(outcome) for outcome in outcomes]
    return stop.exit_code or next(filter(None, codes), 0)


class Stop(Event):
    """Set by Ctrl-C, SIGTERM or SIGHUP; `exit_code` tells by which."""

    exit_code = 0


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the body the first Ctrl-C, SIGTERM or SIGHUP asks the work to end; the second ends it at once.

    A SIGHUP that is ignored, as under nohup, stays so.
    """
    stop = Stop()

    def ask(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.exit_code = 128 + number
        stop.set()

    heard = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        heard.remove(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=_EPILOG)(run)
