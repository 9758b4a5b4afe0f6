"""Commands `init`, `validate` and `schema`: settings of the live service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fer_stream.errors import OutputError, OutputExists


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
    from fer_stream.formatting import count

    sources = load(path, LiveSettings).sources
    typer.echo(f"{path} is valid: {count(len(sources), 'source')} ({', '.join(sources) or 'none'}).")


def schema() -> None:
    """Print the JSON Schema of the live settings.

    Editors use it to complete and check a configuration file.
    """
    from fer_stream.config.live import LiveSettings

    typer.echo(json.dumps(LiveSettings.model_json_schema(), indent=2))


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(init)
    app.command()(validate)
    app.command()(schema)
