"""The command that erases what is known of people."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from fer_stream.service.erase import Erasure

_EPILOG = """\b
Examples:
  fer-stream erase front-door --config live.yaml --from 2026-01-31T12:00Z --to 2026-01-31T12:05Z --dry-run
  fer-stream erase front-door --config live.yaml --from 2026-01-31T13:00+01:00 --to 2026-01-31T13:05+01:00 --yes

\b
Exit code 5 says that something of that time cannot be erased yet, and when to try again. Results of recorded files
are not kept by source: delete them with their job. docs/security.md has all places.
"""

_TIME = "ISO 8601, as in 2026-01-31T12:00Z; UTC where no zone is given."


def forget(
    source: Annotated[str, typer.Argument(help="The name of a source.")],
    config: Annotated[Path, typer.Option(help="The settings of the service, in YAML.")],
    begin: Annotated[str, typer.Option("--from", metavar="TIME", help=_TIME)],
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="The same; by default now.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase what is kept of the people that a source saw in a stretch of time: results, tables, recordings."""
    from fer_stream.config import LiveSettings
    from fer_stream.config.loader import load
    from fer_stream.service import erase as service

    settings = load(config, LiveSettings)
    from_s, to_s = _unix(begin), time.time() if end is None else _unix(end)
    if from_s >= to_s:
        raise ConfigError(f"--from {_shown(from_s)} is not before --to {_shown(to_s)}.")
    known = service.known_sources(settings)
    if source not in known:
        raise ConfigError(f"Nothing is kept of {source}; there are {', '.join(sorted(known)) or 'no sources'}.")
    span = f"{source} from {_shown(from_s)} to {_shown(to_s)}"
    would = service.forget(settings, source, from_s, to_s, dry_run=True)
    typer.echo(f"{span}: {_told(would)}")
    if not dry_run:
        if not yes:
            typer.confirm("Erase this for good?", abort=True)
        done = service.forget(settings, source, from_s, to_s, dry_run=False)
        typer.echo(f"Erased: {_told(done)}")
        if not done.compacted:
            typer.echo(
                "The store did not take BGREWRITEAOF: its append-only file holds what was erased until it does."
            )
        if not done.complete:
            raise OutputError(_left(done))


def _unix(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text} is no time: expected ISO 8601, as in 2026-01-31T12:00Z.") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _told(erasure: Erasure) -> str:
    from fer_stream.formatting import count

    told = [
        count(erasure.results, "result"),
        count(erasure.segments, "segment"),
        count(erasure.waiting, "waiting face"),
        count(erasure.files.rows, "row"),
        count(erasure.files.recordings, "recording"),
    ]
    if unread := erasure.files.unread:
        told.append(f"{count(unread, 'line')} of the tables cannot be read, of whatever time, and stay")
    return ", ".join(told)


def _left(erasure: Erasure) -> str:
    left = [f"{path.name} is still being recorded" for path in erasure.files.growing]
    if erasure.open_since_at is not None:
        since = _shown(erasure.open_since_at)
        left.append(f"the timeline of somebody seen since {since} is not told yet and will be written when it is")
    return f"Not all could be erased: {', '.join(left)}. Run this again in some minutes, or when they are gone."


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=_EPILOG)(forget)
