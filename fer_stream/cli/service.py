"""Commands of the live service."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.errors import ConfigError, OutputError, OutputExists

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings


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

    Lists every error with line and key.
    """
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.loader import load
    from fer_stream.formatting import pluralize

    sources = load(path, LiveSettings).sources
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


def serve(config: Annotated[Path, typer.Argument(help="YAML settings of the service.")]) -> None:
    """Run the live service on this machine."""
    from fer_stream.service import supervisor
    from fer_stream.service.process import run

    settings = _load(config)
    run("serve", settings, partial(supervisor.serve, config=config.absolute()), metrics_port=None, grace_s=None)


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
        int, typer.Option(min=0, envvar="FER_STREAM_SHARD", help="timeline: index of its shard, from 0.")
    ] = 0,
    metrics_port: MetricsPort = None,
) -> None:
    """Run one process of the live service."""
    from fer_stream.service import process

    settings = _load(config)
    port = settings.metrics.port if metrics_port is None else metrics_port
    match role:
        case Role.capture:
            if partition >= partitions:
                raise ConfigError(f"--partition {partition} must be less than --partitions {partitions}.")
            from fer_stream.broker.source_registry import shard_of
            from fer_stream.service.capture import capture

            work = partial(
                capture, load=lambda: _load(config), is_assigned=lambda name: shard_of(name, partitions) == partition
            )
        case Role.classify:
            from fer_stream.service.classify import classify

            work = partial(classify)
        case Role.timeline:
            from fer_stream.service.timeline import timeline

            work = partial(timeline, load=lambda: _load(config), shard=shard)
        case Role.jobs:
            from fer_stream.service.jobs import jobs

            work = partial(jobs)
        case Role.web:
            from fer_stream.service.web import web

            work = partial(web)
    process.run(role.value, settings, work, metrics_port=port)


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


def add_to(app: typer.Typer) -> None:
    """Add the commands of the service to `app`."""
    app.command()(init)
    app.command()(validate)
    app.command()(schema)
    app.command(epilog=_SERVE_EPILOG)(serve)
    app.command()(worker)
    app.command("web")(page)
