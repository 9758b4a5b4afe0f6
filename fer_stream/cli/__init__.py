"""Command line. Only what `--help` needs is imported at the top."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from fer_stream import __version__
from fer_stream.cli import export, jobs, models, run, service
from fer_stream.errors import ConfigError, FerStreamError, translate_missing_extra
from fer_stream.log import quiet_libraries

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
    arguments = sys.argv[1:] if arguments is None else arguments
    quiet_libraries()
    try:
        _refuse_empty(arguments)
        with translate_missing_extra():
            app(arguments)
    except FerStreamError as error:
        typer.echo(f"fer-stream: {error}", err=True)
        raise SystemExit(error.exit_code) from None
    except SystemExit as end:
        if end.code == ConfigError.exit_code:
            _explain_dash(arguments)
        raise


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Raise `ConfigError` if an argument is empty: as a path it would be the current folder."""
    for number, argument in enumerate(arguments, 1):
        if not argument or re.fullmatch(r"--[\w-]+=", argument):
            raise ConfigError(
                f"Argument {number} of the command line is empty{f' ({argument})' if argument else ''}. If it comes "
                "from a shell variable, check that the variable is set."
            )


def _explain_dash(arguments: Sequence[str]) -> None:
    """Print how to pass the first file name that was read as an option, if there is one."""
    for argument in itertools.takewhile(lambda argument: argument != "--", arguments):
        if re.fullmatch(r"-[^-].*\.[a-zA-Z]\w*", argument) or (argument[0] == "-" and os.path.lexists(argument)):
            command = "run" if arguments[0].startswith("-") else arguments[0]
            typer.echo(
                "A file name that starts with a dash must follow --, as in: "
                f"fer-stream {command} -- {shlex.quote(argument)}",
                err=True,
            )
            return


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
export.add_to(app)
service.add_to(app)
jobs.add_to(app)
models.add_to(app)
