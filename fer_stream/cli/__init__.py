"""Command line. Only what `--help` needs is imported at the top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from fer_stream import __version__
from fer_stream.cli import jobs, models, run, service
from fer_stream.errors import FerStreamError

app = typer.Typer(
    name="fer-stream",
    help="Per-person emotion timelines from videos, images and cameras.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. A `FerStreamError` is printed in one sentence and sets the exit code."""
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
    """Per-person emotion timelines from videos, images and cameras."""


run.add_to(app)
service.add_to(app)
jobs.add_to(app)
models.add_to(app)
