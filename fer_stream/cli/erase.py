"""Command `erase`: deletion of personal data."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from fer_stream.service.erase import ErasureReport

_EPILOG = """\b
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
    """Add the command to `app`."""
    app.command(epilog=_EPILOG)(erase)
