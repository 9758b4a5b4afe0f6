"""Command `export`: finished results in the formats of other programs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fer_stream.errors import ConfigError
from fer_stream.outputs.registry import EXPORTS


class ExistingFile(Enum):
    """Treatment of existing exports, and of existing results of a job."""

    error = "error"
    replace = "replace"


_EPILOG = """\b
Examples:
  fer-stream export fer-stream-out/talk.timeline.json --to eaf
  fer-stream export results/*.timeline.json --to vtt,srt --out subtitles
"""


def export(
    timelines: Annotated[list[Path], typer.Argument(help="NAME.timeline.json of finished results.")],
    to: Annotated[str, typer.Option(help=f"Formats, comma-separated: {', '.join(EXPORTS)}.")],
    out: Annotated[Path | None, typer.Option(help="Output folder (default: that of the timeline).")] = None,
    existing: Annotated[ExistingFile, typer.Option(help="Existing files: fail, or replace them.")] = (
        ExistingFile.error
    ),
) -> None:
    """Convert finished results to formats of other programs.

    ELAN (eaf), Praat (textgrid), WebVTT (vtt), SubRip (srt) and BORIS (boris, tab-separated events).
    """
    from fer_stream.outputs.atomic_file import create_output_dir
    from fer_stream.outputs.export import export_file

    formats = to.split(",")
    if unknown := [name for name in formats if name not in EXPORTS]:
        raise ConfigError(f"--to {', '.join(unknown)} is not a format: use {', '.join(EXPORTS)}.")
    if out is not None:
        create_output_dir(out)
    for timeline in timelines:
        for path in export_file(timeline, formats, out=out, force=existing is ExistingFile.replace):
            typer.echo(path)


def add_to(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(epilog=_EPILOG)(export)
