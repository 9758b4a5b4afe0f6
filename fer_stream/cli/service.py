"""The commands of the live service."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from fer_stream.config import LiveSettings

_SERVE_EPILOG = """\b
Examples:
  fer-stream init live.yaml          settings to start from
  fer-stream validate live.yaml      check them
  fer-stream serve live.yaml         everything on this machine, until Ctrl-C
  kill -HUP PID                      take over added, changed and removed sources
"""

Config = Annotated[Path, typer.Option(help="The settings of the service, in YAML.")]
MetricsPort = Annotated[int | None, typer.Option(help="Serve Prometheus metrics on this port.")]


class Role(StrEnum):
    """What a single process does."""

    capture = "capture"
    classify = "classify"
    timeline = "timeline"
    jobs = "jobs"
    web = "web"


def serve(config: Annotated[Path, typer.Argument(help="The settings of the service, in YAML.")]) -> None:
    """Run the live service on this machine: cameras in, timelines out."""
    from fer_stream.service import supervisor
    from fer_stream.service.process import run

    settings = _load(config)
    run("serve", settings, partial(supervisor.serve, config=config.absolute()), metrics_port=None, grace_s=None)


def worker(
    role: Annotated[Role, typer.Argument(help="What this process does.")],
    config: Config,
    part: Annotated[
        int, typer.Option(min=0, envvar="FER_STREAM_PARTITION", help="capture: which part of the sources, from 0.")
    ] = 0,
    parts: Annotated[
        int, typer.Option(min=1, envvar="FER_STREAM_PARTITIONS", help="capture: how many parts there are.")
    ] = 1,
    shard: Annotated[int, typer.Option(min=0, envvar="FER_STREAM_SHARD", help="timeline: which shard, from 0.")] = 0,
    metrics_port: MetricsPort = None,
) -> None:
    """Run a single process of the live service, as a container does."""
    from fer_stream.service import process

    settings = _load(config)
    port = settings.metrics.port if metrics_port is None else metrics_port
    match role:
        case Role.capture:
            if part >= parts:
                raise ConfigError(f"Part {part} is none of {parts}: parts are counted from 0.")
            from fer_stream.broker.keys import shard_of
            from fer_stream.service.capture import capture

            work = partial(capture, load=lambda: _load(config), mine=lambda name: shard_of(name, parts) == part)
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
    config: Annotated[Path | None, typer.Option(help="Settings of the service; by default those of `init`.")] = None,
    host: Annotated[str | None, typer.Option(help="Listen on this address; any but loopback needs a token.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The port to listen on.")] = None,
) -> None:
    """Show the live page and serve the HTTP API of a running service."""
    from fer_stream.config import LiveSettings
    from fer_stream.service import process
    from fer_stream.service.web import web

    settings = _load(config) if config else LiveSettings()
    process.run("web", settings.model_copy(update={"web": settings.web.at(host, port)}), web, metrics_port=None)


def _load(path: Path) -> LiveSettings:
    from fer_stream.config import LiveSettings
    from fer_stream.config.loader import load

    return load(path, LiveSettings)


def add_to(app: typer.Typer) -> None:
    """Add the commands of the service to `app`."""
    app.command(epilog=_SERVE_EPILOG)(serve)
    app.command()(worker)
    app.command("web")(page)
