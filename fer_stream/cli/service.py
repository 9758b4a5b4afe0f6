"""Commands of the live service, including the deletion of personal data."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.cli.models import OfflineOption
from fer_stream.errors import ConfigError, OutputError, OutputExists

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings
    from fer_stream.service.erase import ErasureReport


def init(
    path: Annotated[Path, typer.Argument(help="File to create.")] = Path("live.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Create a commented example configuration."""
    from fer_stream.model_files import packaged_dir

    text = (packaged_dir("configs") / "live.yaml").read_text(encoding="utf-8")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise OutputExists(f"{path} already exists: choose another name, or replace it with --force.") from None
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}. Choose another location.") from None
    typer.echo(f"Created {path}. Add your cameras, then check it: fer-stream validate {path}")


def validate(path: Annotated[Path, typer.Argument(help="YAML settings of the live service.")]) -> None:
    """Validate a configuration file.

    Lists every error with line and key, including video files and certificates that do not exist.
    """
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.loader import load
    from fer_stream.formatting import pluralize

    sources = load(path, LiveSettings, check_files=True).sources
    typer.echo(f"{path} is valid: {pluralize(len(sources), 'source')} ({', '.join(sources) or 'none'}).")


def schema() -> None:
    """Print the JSON Schema of the live settings.

    Editors use it to complete and check a configuration file.
    """
    from fer_stream.config.live import LiveSettings

    typer.echo(json.dumps(LiveSettings.model_json_schema(), indent=2))


_SERVE_EPILOG = """\b
Examples:
  fer-stream init live.yaml          create a configuration
  fer-stream validate live.yaml      check it
  fer-stream serve live.yaml         run everything on this machine, until Ctrl-C
  kill -HUP PID                      reload the configuration
"""

Config = Annotated[Path, typer.Option(help="YAML settings of the service.")]
MetricsPort = Annotated[int | None, typer.Option(help="Port of the Prometheus metrics.")]


class Role(StrEnum):
    """Roles of a process."""

    capture = "capture"
    classify = "classify"
    timeline = "timeline"
    jobs = "jobs"
    web = "web"


def serve(
    config: Annotated[Path, typer.Argument(help="YAML settings of the service.")],
    offline: Annotated[bool, OfflineOption] = False,
) -> None:
    """Run the live service on this machine."""
    from fer_stream.factory import select_detector
    from fer_stream.service import supervisor
    from fer_stream.service.process import run

    path = config.absolute()
    # The selection holds until the end: reloaded settings do not replace a detector that `auto` selected.
    select = cache(partial(select_detector, offline=offline))

    def load_file() -> LiveSettings:
        return _load(path).with_detectors(select)

    settings = load_file()
    run(
        "serve",
        settings,
        partial(supervisor.serve, config=path, load_file=load_file),
        metrics_port=None,
        grace_s=None,
    )


def worker(
    role: Annotated[Role, typer.Argument(help="Role of the process.")],
    config: Config,
    partition: Annotated[
        int,
        typer.Option(min=0, envvar="FER_STREAM_PARTITION", help="capture: index of its partition, from 0."),
    ] = 0,
    partitions: Annotated[
        int, typer.Option(min=1, envvar="FER_STREAM_PARTITIONS", help="capture: number of partitions.")
    ] = 1,
    shard: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            envvar="FER_STREAM_SHARD",
            help="timeline: index of its shard, from 0 (default). Repeat it for several shards.",
        ),
    ] = None,
    metrics_port: MetricsPort = None,
) -> None:
    """Run one process of the live service."""
    from fer_stream.config.reload import load_settings
    from fer_stream.service import process

    load = partial(load_settings, config)
    settings = load()
    port = settings.metrics.port if metrics_port is None else metrics_port
    match role:
        case Role.capture:
            if partition >= partitions:
                raise ConfigError(f"--partition {partition} must be less than --partitions {partitions}.")
            from fer_stream.records import shard_of
            from fer_stream.service.capture import capture

            work = partial(capture, load=load, is_assigned=lambda name: shard_of(name, partitions) == partition)
        case Role.classify:
            from fer_stream.service.workers import classify

            work = partial(classify)
        case Role.timeline:
            from fer_stream.service.timeline import timeline

            work = partial(timeline, load=load, shards=_shards(shard, settings))
        case Role.jobs:
            from fer_stream.service.workers import jobs

            work = partial(jobs)
        case Role.web:
            from fer_stream.service.web import web

            work = partial(web, load=load)
    process.run(role.value, settings, work, metrics_port=port)


def _shards(shards: list[int] | None, settings: LiveSettings) -> list[int]:
    """Return the shards of a timeline process, in ascending order. Raises `ConfigError`."""
    found = sorted(set(shards or [0]))
    if found[-1] >= settings.queue.shards:
        raise ConfigError(f"--shard {found[-1]} must be less than queue.shards, which is {settings.queue.shards}.")
    return found


def page(
    config: Annotated[Path | None, typer.Option(help="YAML settings of the service (default: the defaults).")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; other than loopback needs a token.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
) -> None:
    """Run the web page and HTTP API."""
    from fer_stream.config.live import LiveSettings
    from fer_stream.service import process
    from fer_stream.service.web import web

    settings = _load(config) if config else LiveSettings()
    process.run("web", settings.model_copy(update={"web": settings.web.at(host, port)}), web, metrics_port=None)


def _load(path: Path) -> LiveSettings:
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.loader import load

    return load(path, LiveSettings)


_ERASE_EPILOG = """\b
Examples:
  fer-stream erase front-door --config live.yaml --from 2026-01-31T12:00Z --to 2026-01-31T12:05Z --dry-run
  fer-stream erase front-door --config live.yaml --from 2026-01-31T13:00+01:00 --to 2026-01-31T13:05+01:00 --yes

\b
Exit code 5 means that some data of that time cannot be erased yet; the message says when to try again. Results of
recorded files are not stored by source: delete them with their job.
"""

_TIME = "ISO 8601 such as 2026-01-31T12:00Z; UTC by default."


def erase(
    source: Annotated[str, typer.Argument(help="Name of the source.")],
    config: Annotated[Path, typer.Option(help="YAML settings of the service.")],
    begin: Annotated[str, typer.Option("--from", metavar="TIME", help=_TIME)],
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Same format (default: now).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete all data of a source in a time range.

    Deletes results, rows of tables and recordings.
    """
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.loader import load
    from fer_stream.service import erase as service

    settings = load(config, LiveSettings)
    from_s, to_s = _unix(begin), time.time() if end is None else _unix(end)
    if from_s >= to_s:
        raise ConfigError(f"--from {_format(from_s)} must be before --to {_format(to_s)}.")
    known = service.stored_sources(settings)
    if source not in known:
        raise ConfigError(f"No data of a source {source!r}; sources with data: {', '.join(sorted(known)) or 'none'}.")
    span = f"{source} from {_format(from_s)} to {_format(to_s)}"
    would = service.erase(settings, source, from_s, to_s, dry_run=True)
    typer.echo(f"{span}: {_summary(would)}")
    if not dry_run:
        if not yes:
            typer.confirm("Erase permanently?", abort=True)
        done = service.erase(settings, source, from_s, to_s, dry_run=False)
        typer.echo(f"Erased: {_summary(done)}")
        if not done.compacted:
            typer.echo(
                "Redis refused BGREWRITEAOF: erased data remains in its append-only file until the next rewrite."
            )
        if not done.complete:
            raise OutputError(_remaining(done))


def _unix(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a valid time: expected ISO 8601 such as 2026-01-31T12:00Z.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _format(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _summary(erasure: ErasureReport) -> str:
    from fer_stream.formatting import pluralize

    parts = [
        pluralize(erasure.results, "result"),
        pluralize(erasure.segments, "segment"),
        pluralize(erasure.pending, "queued face"),
        pluralize(erasure.files.rows, "row"),
        pluralize(erasure.files.recordings, "recording"),
    ]
    if unread := erasure.files.unparsable:
        parts.append(f"{pluralize(unread, 'line')} of the tables cannot be parsed and were left")
    return ", ".join(parts)


def _remaining(erasure: ErasureReport) -> str:
    reasons = [f"{path.name} is still being recorded" for path in erasure.files.in_progress]
    if erasure.open_since_at is not None:
        since = _format(erasure.open_since_at)
        reasons.append(
            f"a person visible since {since} still has an open segment, which will be written when it closes"
        )
    return f"Not everything was erased: {', '.join(reasons)}. Run the command again in a few minutes."


def add_to(app: typer.Typer) -> None:
    """Add the commands of the service to `app`."""
    app.command()(init)
    app.command()(validate)
    app.command()(schema)
    app.command(epilog=_SERVE_EPILOG)(serve)
    app.command()(worker)
    app.command("web")(page)
    app.command(epilog=_ERASE_EPILOG)(erase)
