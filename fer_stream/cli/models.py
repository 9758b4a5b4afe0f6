"""Model commands, and the options that select a model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class ModelSize(StrEnum):
    """Which of the models that come with fer-stream."""

    standard = "standard"
    small = "small"


class Backend(StrEnum):
    """Which runtime classifies."""

    auto = "auto"
    litert = "litert"
    onnx = "onnx"
    openvino = "openvino"
    keras = "keras"


SizeOption = typer.Option(help="Which shipped model; small is for small devices.")
BackendOption = typer.Option(help="Which runtime classifies.")

app = typer.Typer(help="Download and check face detector weights.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """Show what can be fetched, and what is here."""
    from fer_stream import model_files as weights

    for status in weights.listing():
        known = status.weights
        typer.echo(
            f"{known.name:15} {status.state:8} {known.size_bytes / 1000:6.0f} kB  {known.licence:5} {status.path}"
        )


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(help="Which weights; `fer-stream models list` names them.")
    ] = "yunet-2023mar",
    base_url: Annotated[str | None, typer.Option(help="Fetch from this folder of a mirror.")] = None,
) -> None:
    """Fetch weights, check them, and keep them in the cache."""
    from fer_stream import model_files as weights
    from fer_stream.cli.console import download_bar

    with download_bar(name) as progress:
        path = weights.pull(name, base_url=base_url, progress=progress)
    typer.echo(f"{name} is at {path}")


@app.command()
def verify() -> None:
    """Check the weights in the cache against their SHA-256."""
    from fer_stream import model_files as weights

    for status in weights.verify():
        typer.echo(f"{status.weights.name}: {status.state}")
