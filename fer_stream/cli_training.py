"""The commands that make models: train, export, evaluate."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.cli_model import Backend, BackendOption, ModelSize, SizeOption

if TYPE_CHECKING:
    from fer_stream.records import F32, U8

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
    from fer_stream.config.training import TrainSettings
    from fer_stream.console import TrainingBar
    from fer_stream.yamlfile import load

    settings = load(config, TrainSettings)
    from fer_stream.training.fit import train as fit  # loads a backend of Keras: after what may be wrong quickly

    with TrainingBar(settings.epochs, quiet=quiet) as bar:
        history = fit(settings, out, bar.progress)
    best = max(history, key=lambda epoch: epoch.accuracy)
    typer.echo(f"{out}: PublicTest {best.accuracy:.2%} after epoch {best.epoch + 1} of {settings.epochs}")


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    out: Out = Path("model"),
    name: Annotated[str, typer.Option(help="What the model is called; by default as the folder of the run.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a model that is there already.")] = False,
) -> None:
    """Make a model folder of a finished run: Keras, int8 LiteRT, ONNX, int8 ONNX and the card."""
    from fer_stream.training.export import export

    card = export(run, out, model_id=name or run.name, force=force)
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
    from fer_stream.build import make_classifier
    from fer_stream.config import ModelSettings
    from fer_stream.training import report
    from fer_stream.training.dataset import load_faces
    from fer_stream.training.evaluate import HARMS
    from fer_stream.training.evaluate import evaluate as judge
    from fer_stream.weights import shipped_model_dir

    faces = load_faces(data, part.value, ferplus)
    folder = model or shipped_model_dir(model_size)
    classifier = make_classifier(ModelSettings(backend=backend.value, path=folder))
    found = judge(
        classifier.predict,
        faces,
        harms=() if no_robustness else tuple(HARMS),
        batches=_BATCHES,
        progress=_on_stderr,
        ferplus=_ferplus_head(folder) if faces.votes.any() else None,
    )
    path = report.write(found, f"{classifier.spec.model_id}, {backend.value}, on {part.value} of {data.name}", out)
    low, high = found.interval
    typer.echo(f"{found.accuracy:.2%} of {found.faces} faces (95 %: {low:.1%} to {high:.1%}); {path}")


def _ferplus_head(model: Path) -> Callable[[U8], F32] | None:
    """What the Keras file of a model folder says of FER+, if it has such a head, whichever backend is judged."""
    from fer_stream.recognize.card import KERAS_FILE
    from fer_stream.training.fit import predict
    from fer_stream.training.trained import load_net

    net = load_net(model / KERAS_FILE)
    return (lambda images: predict(net, images)["ferplus"]) if "ferplus" in net.output_names else None


def _on_stderr(text: str) -> None:
    typer.echo(text, err=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands that make models to `app`."""
    app.command(epilog=_TRAIN_EPILOG)(train)
    app.command()(export)
    app.command()(evaluate)
