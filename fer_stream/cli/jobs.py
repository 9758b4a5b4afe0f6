"""The commands for recorded files as jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fer_stream.config import LiveSettings
    from fer_stream.jobs.job import JobInfo, Jobs

_EXIT_CODES = """
\b
Exit codes:
  0  done                                   2  command line or settings are wrong
  3  a file cannot be read                  5  a result is there already
  6  the service does not run               7  no such job, not in that state, or it failed
"""

_SUBMIT_EPILOG = (
    """\b
Examples:
  fer-stream submit talk.mp4                          results into the folder `jobs` of the service
  fer-stream submit talks/ --out results              every video in a folder
  fer-stream submit talk.mp4 --priority high          before all others that wait
  fer-stream submit talk.mp4 --settings my.yaml       what `fer-stream run` can be told with --config
  fer-stream jobs wait $(fer-stream submit talk.mp4 --ids)
"""
    + _EXIT_CODES
)

_JOBS_EPILOG = (
    """\b
Examples:
  fer-stream jobs                    all jobs, the newest first
  fer-stream jobs show ID            all about one
  fer-stream jobs wait ID            until it has ended, with a bar
  fer-stream jobs cancel ID          no results
  fer-stream jobs retry ID           one that failed or was cancelled
  fer-stream jobs delete ID          forget it; --outputs deletes its results too
"""
    + _EXIT_CODES
)

_POLL_S = 0.5
# A service on this machine answers at once or is not there; one elsewhere may be slow.
_PATIENCE_S = 5.0

Config = Annotated[
    Path | None, typer.Option("--config", help="The settings of the service; by default those of `init`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
JobId = Annotated[str, typer.Argument(help="The id of the job, as `fer-stream jobs` shows it.", metavar="ID")]
JobIds = Annotated[list[str], typer.Argument(help="The ids of the jobs.", metavar="ID...")]

jobs = typer.Typer(
    help="See and steer the jobs that `fer-stream submit` gave to the service.",
    epilog=_JOBS_EPILOG,
    rich_markup_mode=None,
)


class Priority(StrEnum):
    """Which jobs begin first."""

    high = "high"
    normal = "normal"
    low = "low"


def submit(
    files: Annotated[list[str], typer.Argument(help="Video files, still images, folders, globs.", metavar="FILE...")],
    config: Config = None,
    priority: Annotated[Priority, typer.Option(help="Which jobs begin first.")] = Priority.normal,
    out: Annotated[Path | None, typer.Option(help="The folder for the results; by default jobs.output_dir.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="What `fer-stream run` takes with --config; by default as for the cameras.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results that are there already.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Print the ids of the jobs and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give recorded files to a running service, which does them as `fer-stream run` would."""
    from fer_stream.capture.discovery import find_sources, output_names
    from fer_stream.config import FileSettings
    from fer_stream.config.loader import load

    live = _live(config)
    how = load(settings, FileSettings) if settings else live.for_files()
    paths = find_sources(files)
    named = list(zip(paths, output_names(paths), strict=True))
    folder = out or live.jobs_output_dir
    with _jobs(live) as known:
        for path, name in named:
            known.check(path, out=folder, settings=how, force=force, name=name)
        submitted = (
            known.submit(path, out=folder, settings=how, priority=priority.value, force=force, name=name)
            for path, name in named
        )
        _tell(submitted, ids=ids, as_json=as_json)


@jobs.callback(invoke_without_command=True)
def show_all(context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Show all jobs, unless a command says something else."""
    context.obj = config
    if context.invoked_subcommand is None:
        with _jobs(_live(config)) as known:
            found = known.list()
        typer.echo(_as_json(found) if as_json else _table(found))


@jobs.command()
def show(job_id: JobId, context: typer.Context, config: Config = None, as_json: AsJson = False) -> None:
    """Show all that is known of a job."""
    with _jobs(_live(config or context.obj)) as known:
        info = known.get(job_id)
    typer.echo(_as_json(info) if as_json else "\n".join(f"{key:13}{value}" for key, value in _lines(info)))


@jobs.command()
def cancel(job_ids: JobIds, context: typer.Context, config: Config = None) -> None:
    """End jobs that have not ended. They leave no results."""
    _each(job_ids, config or context.obj, lambda known, job_id: known.cancel(job_id), "is cancelled")


@jobs.command()
def retry(job_ids: JobIds, context: typer.Context, config: Config = None) -> None:
    """Try jobs again that failed or were cancelled."""
    _each(job_ids, config or context.obj, lambda known, job_id: known.retry(job_id), "is on the queue again")


@jobs.command()
def delete(
    job_ids: JobIds,
    context: typer.Context,
    config: Config = None,
    outputs: Annotated[bool, typer.Option("--outputs", help="Delete the results too.")] = False,
) -> None:
    """Forget jobs that have ended. The files themselves stay."""

    def forget(known: Jobs, job_id: str) -> None:
        known.delete(job_id, outputs=outputs)

    _each(job_ids, config or context.obj, forget, "is forgotten")


@jobs.command()
def wait(job_ids: JobIds, context: typer.Context, config: Config = None) -> None:
    """Wait until jobs have ended; fail where one of them did not end well."""
    from fer_stream.errors import JobFailed

    with _jobs(_live(config or context.obj)) as known, _bars() as show_progress:
        found = [known.get(job_id) for job_id in job_ids]
        show_progress(found)
        while not all(info.ended for info in found):
            time.sleep(_POLL_S)
            found = [info if info.ended else known.get(info.job_id) for info in found]
            show_progress(found)
    for info in found:
        typer.echo(f"{info.job_id}  {info.state}: {_said(info)}")
    if bad := [info for info in found if info.state != "done"]:
        raise JobFailed(f"{len(bad)} of {len(found)} did not end well: see `fer-stream jobs show {bad[0].job_id}`.")


def add_to(app: typer.Typer) -> None:
    """Add the commands for jobs to `app`."""
    app.command(epilog=_SUBMIT_EPILOG)(submit)
    app.add_typer(jobs, name="jobs")


@contextmanager
def _jobs(settings: LiveSettings) -> Iterator[Jobs]:
    from threading import Event

    from fer_stream.service.connections import open_jobs, open_store_link

    known = open_jobs(open_store_link(settings, Event(), patience_s=_PATIENCE_S), settings)
    try:
        yield known
    finally:
        known.close()


@contextmanager
def _bars() -> Iterator[Callable[[Sequence[JobInfo]], None]]:
    """A bar for each job, where stderr is a terminal; gives what to call with how they are."""
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
    from fer_stream.config import LiveSettings
    from fer_stream.config.loader import load

    return load(config, LiveSettings) if config else LiveSettings()


def _tell(submitted: Iterable[JobInfo], *, ids: bool, as_json: bool) -> None:
    """Print each job when it was submitted; as JSON all that were, also where a later one was refused."""
    told: list[JobInfo] = []
    try:
        for info in submitted:
            told.append(info)
            if not as_json:
                typer.echo(info.job_id if ids else f"{info.job_id}  {info.path.name} → {info.out / info.name}.*")
    finally:
        if as_json:
            typer.echo(_as_json(told))


def _each(job_ids: Sequence[str], config: Path | None, ask: Callable[[Jobs, str], object], done: str) -> None:
    with _jobs(_live(config)) as known:
        for job_id in job_ids:
            ask(known, job_id)
            typer.echo(f"{job_id}  {done}")


def _table(found: Sequence[JobInfo]) -> str:
    from fer_stream.formatting import lasting

    if not found:
        return "There are no jobs. Submit a file: fer-stream submit talk.mp4"
    rows = [("id", "state", "part", "file", "age", "results, or why not")]
    rows += [
        (i.job_id, i.state, _part(i), i.path.name, lasting(time.time() - i.submitted_at), _said(i)) for i in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def _part(info: JobInfo) -> str:
    if info.progress is None:
        return f"{info.frames} frames" if info.frames else "-"
    return f"{info.progress:.0%}"


def _said(info: JobInfo) -> str:
    if info.state == "done":
        return f"{info.out / info.name}.*"
    if info.state == "queued":
        return f"{info.priority} priority"
    return info.error or "-"


def _lines(info: JobInfo) -> Iterator[tuple[str, object]]:
    yield "id", info.job_id
    yield "state", info.state
    yield "file", info.path
    yield "results", f"{info.out / info.name}.*"
    yield "priority", info.priority
    yield "read", f"{_part(info)}, {info.frames} frames"
    yield "attempts", info.attempts
    for name in ("submitted", "started", "ended"):
        at: float | None = getattr(info, f"{name}_at")
        yield name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"
    if info.retry_at:
        yield "again in", f"{max(0.0, info.retry_at - time.time()):.0f} s"
    if info.error:
        yield "why not", info.error
    for path in info.outputs:
        yield "written", path


def _as_json(found: JobInfo | Sequence[JobInfo]) -> str:
    from dataclasses import asdict

    document: Any = list(map(asdict, found)) if isinstance(found, Sequence) else asdict(found)
    return json.dumps(document, indent=2, default=str)
