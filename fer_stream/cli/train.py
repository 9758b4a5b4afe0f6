"""The commands that make models: train, export, evaluate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.cli.models import Backend, BackendOption, ModelSize, SizeOption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.training.dataset import Faces

_TRAIN_EPILOG = """\b
Examples:
  fer-stream train --config train.yaml --out runs/first    the same command goes on after a kill
  KERAS_BACKEND=jax fer-stream train …                      on another backend of Keras
  fer-stream export runs/first --out my-model
  fer-stream evaluate --model my-model --data fer2013.csv --out evaluation
"""

# The batches whose speed is measured: one camera's face, a full batch, and what a GPU takes.
_BATCHES = (1, 8, 32)


class FerPart(StrEnum):
    """A part of FER-2013: learned from, chosen on, or read once at the end."""

    train = "train"
    public = "public"
    private = "private"


Out = Annotated[Path, typer.Option(help="The folder for the results.")]


def train(
    config: Annotated[Path, typer.Option(help="The settings of the training, in YAML.")],
    out: Out = Path("runs/last"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Train a net on FER-2013, or go on with a run that was interrupted."""
    from fer_stream.cli.console import TrainingBar
    from fer_stream.config.loader import load
    from fer_stream.config.training import TrainSettings
    from fer_stream.training.progress import best

    settings = load(config, TrainSettings)
    from fer_stream.training.fit import train as fit  # loads a backend of Keras: after what may be wrong quickly

    with TrainingBar(settings.epochs, quiet=quiet) as bar:
        history = fit(settings, out, bar.progress)
    kept = best(history)
    typer.echo(f"{out}: PublicTest {kept.accuracy:.2%} after epoch {kept.epoch + 1} of {settings.epochs}")


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Out = Path("model"),
    name: Annotated[str, typer.Option(help="What the model is called; by default as the folder of the run.")] = "",
    dataset: Annotated[str, typer.Option(help="What the card says that it was trained on.")] = "",
    licence: Annotated[str, typer.Option(help="The licence that the card states.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there already.")] = False,
) -> None:
    """Make a model folder of a finished run: Keras, int8 LiteRT, ONNX, int8 ONNX and the card."""
    from fer_stream.training.export import export

    stated = {key: value for key, value in (("dataset", dataset), ("licence", licence)) if value}
    card = export(run, out, model_id=name or run.name, force=force, **stated)
    typer.echo(
        f"{out}: {card['model_id']}, {card['parameters']:,} parameters, {card['macs'] / 1e6:.0f} M multiply-adds"
    )


def evaluate(
    data: Annotated[Path, typer.Option(help="FER-2013, or a folder with one sub-folder a label.")],
    model: Annotated[Path | None, typer.Option(help="A model folder; by default a shipped model.")] = None,
    model_size: Annotated[ModelSize, SizeOption] = ModelSize.standard,
    backend: Annotated[Backend, BackendOption] = Backend.litert,
    part: Annotated[FerPart, typer.Option(help="Which part of FER-2013.")] = FerPart.private,
    ferplus: Annotated[Path | None, typer.Option(help="fer2013new.csv of Microsoft's FERPlus.")] = None,
    out: Out = Path("evaluation"),
    no_robustness: Annotated[
        bool, typer.Option("--no-robustness", help="Leave out blurred, dark and small faces.")
    ] = False,
) -> None:
    """Judge a model on labelled faces; writes evaluation.md, evaluation.json and pictures."""
    from fer_stream.config import ModelSettings
    from fer_stream.factory import make_classifier, runtime_of, runtimes
    from fer_stream.training import report
    from fer_stream.training.evaluate import HARMS
    from fer_stream.training.evaluate import evaluate as judge

    faces, copied, called = _faces(data, part, ferplus)
    settings = ModelSettings(backend=backend.value, path=model, size=model_size.value)
    judged, timed = runtime_of(settings), runtimes(settings)
    classifiers = {
        name: make_classifier(settings.model_copy(update={"backend": name}))
        for name in dict.fromkeys((judged, *timed))
    }
    found = judge(
        classifiers[judged].predict,
        faces,
        copied=copied,
        harms=() if no_robustness else tuple(HARMS),
        runtimes={name: classifiers[name].predict for name in timed},
        batches=_BATCHES,
        progress=_on_stderr,
    )
    path = report.write(found, f"{classifiers[judged].spec.model_id}, {judged}, on {called}", out)
    low, high = found.interval
    typer.echo(f"{found.accuracy:.2%} of {found.faces} faces (95 %: {low:.1%} to {high:.1%}); {path}")


def _faces(data: Path, part: FerPart, ferplus: Path | None) -> tuple[Faces, NDArray[np.bool_], str]:
    """What to judge on, which of it a net of FER-2013 may know from training, and what it is called."""
    from fer_stream.training.dataset import copies, is_plain_folder, load_folder, load_parts

    if is_plain_folder(data):
        faces = load_folder(data, ferplus)
        return faces, copies(faces.images, faces.images[:0]), data.name
    parts = load_parts(data, ferplus)
    faces = parts[part.value]
    known = parts["train"].images if part is not FerPart.train else faces.images[:0]
    return faces, copies(faces.images, known), f"{part.value} of {data.name}"


def _on_stderr(text: str) -> None:
    typer.echo(text, err=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands that make models to `app`."""
    app.command(epilog=_TRAIN_EPILOG)(train)
    app.command()(export)
    app.command()(evaluate)
