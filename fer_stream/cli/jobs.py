"""Commands `submit` and `jobs`: recorded files processed by the service."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_stream.cli.export import ExistingFile

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings
    from fer_stream.jobs.job import JobInfo, Jobs

_EXIT_CODES = """
\b
Exit codes:
  0  success                                2  invalid command line or settings
  3  a file cannot be read                  5  a result already exists
  6  the service is not running             7  unknown job, wrong state, or a failed job
"""

_SUBMIT_EPILOG = (
    """\b
Examples:
  fer-stream submit talk.mp4                          write results to the service's jobs folder
  fer-stream submit talks/ --out results              all videos of a folder
  fer-stream submit talk.mp4 --priority high          before other queued jobs
  fer-stream submit talk.mp4 --settings my.yaml       with settings as for fer-stream run --config
  fer-stream jobs wait $(fer-stream submit talk.mp4 --ids)
"""
    + _EXIT_CODES
)

_JOBS_EPILOG = (
    """\b
Examples:
  fer-stream jobs                    list all jobs, newest first
  fer-stream jobs show ID            show the details of a job
  fer-stream jobs wait ID            wait for a job, with a progress bar
  fer-stream jobs cancel ID          cancel a job; it leaves no results
  fer-stream jobs retry ID           retry a failed or cancelled job
  fer-stream jobs delete ID          delete its record; --outputs also deletes its results
"""
    + _EXIT_CODES
)

_POLL_S = 0.5
# A local server responds at once or is not running; a remote one may be slow.
_TIMEOUT_S = 5.0

Config = Annotated[
    Path | None, typer.Option("--config", help="YAML settings of the service (default: the defaults).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(help="Job id.", metavar="ID")]
JobIds = Annotated[list[str], typer.Argument(help="Job ids.", metavar="ID")]

jobs = typer.Typer(
    help="List and manage jobs.",
    epilog=_JOBS_EPILOG,
    rich_markup_mode=None,
)


class Priority(StrEnum):
    """Priorities of jobs."""

    high = "high"
    normal = "normal"
    low = "low"


def submit(
    files: Annotated[list[str], typer.Argument(help="Video files, still images, folders, globs.", metavar="FILE")],
    config: Config = None,
    priority: Annotated[Priority, typer.Option(help="Priority in the queue.")] = Priority.normal,
    out: Annotated[Path | None, typer.Option(help="Output folder (default: jobs.output_dir).")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="YAML settings as for fer-stream run (default: as for cameras).")
    ] = None,
    existing: Annotated[
        ExistingFile, typer.Option(help="Existing results: fail, or replace them.")
    ] = ExistingFile.error,
    ids: Annotated[bool, typer.Option("--ids", help="Print only job ids.")] = False,
    as_json: AsJson = False,
) -> None:
    """Queue files for processing by the service.

    The results are those of `fer-stream run`.
    """
    from fer_stream.capture.discovery import discover
    from fer_stream.cli.console import print_messages
    from fer_stream.config.loader import load
    from fer_stream.config.settings import FileSettings

    live = _live(config)
    file_settings = load(settings, FileSettings) if settings else live.for_files()
    found = discover(files)
    print_messages(found)
    folder = out or live.jobs_output_dir
    with _jobs(live) as jobs_client:
        for file in found.files:
            jobs_client.check(
                file.path,
                out=folder / file.folder,
                settings=file_settings,
                force=existing is ExistingFile.replace,
                name=file.name,
            )
        submitted = (
            jobs_client.submit(
                file.path,
                out=folder / file.folder,
                settings=file_settings,
                priority=priority.value,
                force=existing is ExistingFile.replace,
                name=file.name,
            )
            for file in found.files
        )
        _print_submitted(submitted, ids=ids, as_json=as_json)


@jobs.callback(invoke_without_command=True)
def show_all(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """List all jobs if no subcommand is given."""
    context.obj = config
    if context.invoked_subcommand is None:
        with _jobs(_live(config)) as jobs_client:
            found = jobs_client.list()
        typer.echo(_as_json(found) if as_json else _table(found))


@jobs.command()
def show(job_id: JobId, context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Show the details of a job."""
    with _jobs(_live(config or context.obj)) as jobs_client:
        info = jobs_client.get(job_id)
    typer.echo(_as_json(info) if as_json else "\n".join(f"{key:13}{value}" for key, value in _details(info)))


@jobs.command()
def cancel(job_ids: JobIds, context: typer.Context, config: Config = None) -> None:
    """Cancel queued or running jobs."""
    _each(job_ids, config or context.obj, lambda jobs_client, job_id: jobs_client.cancel(job_id), "cancelled")


@jobs.command()
def retry(job_ids: JobIds, context: typer.Context, config: Config = None) -> None:
    """Retry failed or cancelled jobs."""
    _each(job_ids, config or context.obj, lambda jobs_client, job_id: jobs_client.retry(job_id), "queued again")


@jobs.command()
def delete(
    job_ids: JobIds,
    context: typer.Context,
    config: Config = None,
    outputs: Annotated[bool, typer.Option("--outputs", help="Also delete the results.")] = False,
) -> None:
    """Delete the records of finished jobs.

    The source files are kept.
    """

    def delete_record(jobs_client: Jobs, job_id: str) -> None:
        jobs_client.delete(job_id, outputs=outputs)

    _each(job_ids, config or context.obj, delete_record, "deleted")


@jobs.command()
def wait(job_ids: JobIds, context: typer.Context, config: Config = None) -> None:
    """Wait for jobs; exit non-zero if any failed."""
    from fer_stream.errors import JobFailed

    with _jobs(_live(config or context.obj)) as jobs_client, _bars() as show_progress:
        found = [jobs_client.get(job_id) for job_id in job_ids]
        show_progress(found)
        while not all(info.ended for info in found):
            time.sleep(_POLL_S)
            found = [info if info.ended else jobs_client.get(info.job_id) for info in found]
            show_progress(found)
    for info in found:
        typer.echo(f"{info.job_id}  {info.state}: {_result(info)}")
    if failed := [info for info in found if info.state != "done"]:
        raise JobFailed(f"{len(failed)} of {len(found)} jobs failed: see `fer-stream jobs show {failed[0].job_id}`.")


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog=_SUBMIT_EPILOG)(submit)
    app.add_typer(jobs, name="jobs")


@contextmanager
def _jobs(settings: LiveSettings) -> Iterator[Jobs]:
    from threading import Event

    from fer_stream.service.process import connect_store, open_jobs

    jobs_client = open_jobs(connect_store(settings, Event(), retry_timeout_s=_TIMEOUT_S), settings)
    try:
        yield jobs_client
    finally:
        jobs_client.close()


@contextmanager
def _bars() -> Iterator[Callable[[Sequence[JobInfo]], None]]:
    """Show a progress bar per job if stderr is a terminal; yield the function that updates them."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show_progress(found: Sequence[JobInfo]) -> None:
            for info in found:
                if info.job_id not in tasks:
                    tasks[info.job_id] = bars.add_task(info.path.name, total=1.0, state=info.state)
                bars.update(tasks[info.job_id], completed=info.progress or 0.0, state=info.state)

        yield show_progress


def _live(config: Path | None) -> LiveSettings:
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.loader import load

    return load(config, LiveSettings) if config else LiveSettings()


def _print_submitted(submitted: Iterable[JobInfo], *, ids: bool, as_json: bool) -> None:
    """Print each job as it is submitted. With JSON, print all submitted jobs at the end, even if one is rejected."""
    printed: list[JobInfo] = []
    try:
        for info in submitted:
            printed.append(info)
            if not as_json:
                typer.echo(info.job_id if ids else f"{info.job_id}  {info.path.name} → {info.out / info.name}.*")
    finally:
        if as_json:
            typer.echo(_as_json(printed))


def _each(job_ids: Sequence[str], config: Path | None, action: Callable[[Jobs, str], object], outcome: str) -> None:
    with _jobs(_live(config)) as jobs_client:
        for job_id in job_ids:
            action(jobs_client, job_id)
            typer.echo(f"{job_id}  {outcome}")


def _table(found: Sequence[JobInfo]) -> str:
    from fer_stream.formatting import format_duration

    if not found:
        return "No jobs. Submit a file: fer-stream submit talk.mp4"
    rows = [("id", "state", "progress", "file", "age", "result / error")]
    rows += [
        (i.job_id, i.state, _progress(i), i.path.name, format_duration(time.time() - i.submitted_at), _result(i))
        for i in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _progress(info: JobInfo) -> str:
    if info.progress is None:
        return f"{info.frames} frames" if info.frames else "-"
    return f"{info.progress:.0%}"


def _result(info: JobInfo) -> str:
    if info.state == "done":
        return f"{info.out / info.name}.*"
    if info.state == "queued":
        return f"{info.priority} priority"
    return info.error or "-"


def _details(info: JobInfo) -> Iterator[tuple[str, object]]:
    yield "id", info.job_id
    yield "state", info.state
    yield "file", info.path
    yield "results", f"{info.out / info.name}.*"
    yield "priority", info.priority
    yield "progress", f"{_progress(info)}, {info.frames} frames"
    yield "attempts", info.attempts
    for name in ("submitted", "started", "ended"):
        at: float | None = getattr(info, f"{name}_at")
        yield name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"
    if info.retry_at:
        yield "retry in", f"{max(0.0, info.retry_at - time.time()):.0f} s"
    if info.error:
        yield "error", info.error
    for path in info.outputs:
        yield "output", path


def _as_json(found: JobInfo | Sequence[JobInfo]) -> str:
    from dataclasses import asdict

    document: Any = list(map(asdict, found)) if isinstance(found, Sequence) else asdict(found)
    return json.dumps(document, indent=2, default=str)
