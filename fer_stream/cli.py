"""The command line. Only what `--help` needs is imported at the top."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream import __version__, cli_forget, cli_jobs, cli_service, cli_training
from fer_stream.cli_model import Backend, BackendOption, ModelSize, SizeOption
from fer_stream.errors import FerStreamError, OutputError, OutputExists

if TYPE_CHECKING:
    from fer_stream.config import FileSettings

app = typer.Typer(
    name="fer-stream",
    help="Who showed which emotion, when: emotion timelines from videos, still images and cameras.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
models = typer.Typer(help="Fetch and check the weights of the face detector.", no_args_is_help=True)
app.add_typer(models, name="models")


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


_RUN_EPILOG = """\b
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error that fer-stream foresees becomes one sentence and its exit code."""
    try:
        app(arguments)
    except FerStreamError as error:
        typer.echo(f"fer-stream: {error}", err=True)
        raise SystemExit(error.exit_code) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fer-stream {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Who showed which emotion, when."""


@app.command(epilog=_RUN_EPILOG)
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
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Leave out NAME.timeline.png.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace results that are there already.")] = False,
    processes: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Files at a time; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Turn recorded videos and still images into emotion timelines."""
    from fer_stream.config import FileSettings
    from fer_stream.yamlfile import load

    settings = (load(config, FileSettings) if config else FileSettings()).with_values(
        {
            "fps": fps,
            "detector.kind": detector,
            "detector.weights": weights,
            "model.size": model_size,
            "model.backend": backend,
            "outputs.redact": redact,
            "outputs.redact_people": tuple(redact_person) if redact_person else None,
            "outputs.thumbnails": thumbnails,
            "outputs.table": False if no_table else None,
            "outputs.video": False if no_video else None,
            "outputs.report": False if no_report else None,
            "outputs.picture": False if no_picture else None,
        }
    )
    raise SystemExit(_run_files(sources, settings, out, force=force, processes=processes, quiet=quiet))


def _run_files(
    sources: list[str], settings: FileSettings, out: Path, *, force: bool, processes: int | None, quiet: bool
) -> int:
    from fer_stream.batch import cores, run_jobs
    from fer_stream.capture.find import find_sources, output_names
    from fer_stream.console import Console
    from fer_stream.filejob import FileJob, make_folder

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


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("live.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there already.")] = False,
) -> None:
    """Write settings to start from, with two cameras and all defaults explained."""
    from fer_stream.weights import packaged

    text = (packaged("configs") / "live.yaml").read_text(encoding="utf-8")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputExists(f"{path} is there already: choose another name, or replace it with --force.") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}. Choose another place.") from None
    typer.echo(f"{path} is written. Put your cameras into it, then check it: fer-stream validate {path}")


@app.command()
def validate(path: Annotated[Path, typer.Argument(help="Settings of the live service, in YAML.")]) -> None:
    """Check settings of the live service; say all that is wrong, with line and key."""
    from fer_stream.config import LiveSettings
    from fer_stream.writers.words import count
    from fer_stream.yamlfile import load

    sources = load(path, LiveSettings).sources
    typer.echo(f"{path} is valid: {count(len(sources), 'source')} ({', '.join(sources) or 'none yet'}).")


@app.command()
def schema() -> None:
    """Print the JSON Schema of the live settings, with which editors complete and check them."""
    from fer_stream.config import LiveSettings

    typer.echo(json.dumps(LiveSettings.model_json_schema(), indent=2))


cli_service.add_to(app)
cli_jobs.add_to(app)
cli_forget.add_to(app)
cli_training.add_to(app)


@models.command("list")
def list_models() -> None:
    """Show what can be fetched, and what is here."""
    from fer_stream import weights

    for status in weights.listing():
        known = status.weights
        typer.echo(
            f"{known.name:15} {status.state:8} {known.size_bytes / 1000:6.0f} kB  {known.licence:5} {status.path}"
        )


@models.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="Which weights; `fer-stream models list` names them.")
    ] = "yunet-2023mar",
    base_url: Annotated[str | None, typer.Option(help="Fetch from this folder of a mirror.")] = None,
) -> None:
    """Fetch weights, check them, and keep them in the cache."""
    from fer_stream import weights
    from fer_stream.console import download_bar

    with download_bar(name) as progress:
        path = weights.pull(name, base_url=base_url, progress=progress)
    typer.echo(f"{name} is at {path}")


@models.command()
def verify() -> None:
    """Check the weights in the cache against their SHA-256."""
    from fer_stream import weights

    for status in weights.verify():
        typer.echo(f"{status.weights.name}: {status.state}")


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


if __name__ == "__main__":
    main()
