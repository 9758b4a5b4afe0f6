"""Model commands, and the options that select a model."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.classify.backends import BACKENDS


class ModelSize(StrEnum):
    """Models shipped with fer-stream."""

    standard = "standard"
    small = "small"


if TYPE_CHECKING:
    Backend = str
else:  # mypy only accepts literal members
    Backend = StrEnum("Backend", {name: name for name in ("auto", *BACKENDS)})


SizeOption = typer.Option(help="Shipped model; small is for small devices.")
BackendOption = typer.Option(help="Inference backend.")

app = typer.Typer(help="Download and check face detector weights.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List available and downloaded weights."""
    from fer_stream import model_files

    for status in model_files.cache_statuses():
        known = status.weights
        typer.echo(
            f"{known.name:15} {status.state:8} {known.size_bytes / 1000:6.0f} kB  {known.licence:5} {status.path}"
        )


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name from `fer-stream models list`.")] = "yunet-2023mar",
    base_url: Annotated[str | None, typer.Option(help="URL of a mirror.")] = None,
) -> None:
    """Download weights into the cache.

    Their SHA-256 is checked.
    """
    from fer_stream import model_files
    from fer_stream.cli.console import download_bar

    with download_bar(name) as progress:
        path = model_files.pull(name, base_url=base_url, progress=progress)
    typer.echo(f"{name}: {path}")


@app.command()
def verify() -> None:
    """Verify the SHA-256 of downloaded weights."""
    from fer_stream import model_files

    for status in model_files.verify():
        typer.echo(f"{status.weights.name}: {status.state}")
