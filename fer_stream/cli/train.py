"""Commands `train`, `export` and `evaluate`."""

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
  fer-stream train --config train.yaml --out runs/first    the same command resumes the run
  KERAS_BACKEND=jax fer-stream train …                      on another Keras backend
  fer-stream export runs/first --out my-model
  fer-stream evaluate --model my-model --data fer2013.csv --out evaluation
"""

# Batch sizes of the speed measurement: one face, a partial batch and a full batch.
_BATCHES = (1, 8, 32)


class Split(StrEnum):
    """Splits of FER-2013: for training, for selection, and for the final test."""

    train = "train"
    public = "public"
    private = "private"


Out = Annotated[Path, typer.Option(help="Output folder.")]


def train(
    config: Annotated[Path, typer.Option(help="YAML settings of the training.")],
    out: Out = Path("runs/last"),
    quiet: Annotated[bool, typer.Option("--quiet", help="Only print errors.")] = False,
) -> None:
    """Train on FER-2013; resumes an interrupted run."""
    from fer_stream.cli.console import TrainingBar
    from fer_stream.config.loader import load
    from fer_stream.config.training import TrainSettings
    from fer_stream.training.progress import best

    settings = load(config, TrainSettings)
    from fer_stream.training.fit import train as fit  # loads a Keras backend, so only after the settings are valid

    with TrainingBar(settings.epochs, quiet=quiet) as bar:
        history = fit(settings, out, bar.progress)
    kept = best(history)
    typer.echo(f"{out}: PublicTest {kept.accuracy:.2%} after epoch {kept.epoch + 1} of {settings.epochs}")


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Out = Path("model"),
    name: Annotated[str, typer.Option(help="Model name (default: name of the run's folder).")] = "",
    dataset: Annotated[str, typer.Option(help="Dataset name recorded in the model card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence recorded in the model card.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing model.")] = False,
) -> None:
    """Export a finished run as a model folder.

    Writes Keras, int8 LiteRT, ONNX and int8 ONNX files and the model card.
    """
    from fer_stream.training.export import export

    stated = {key: value for key, value in (("dataset", dataset), ("licence", licence)) if value}
    card = export(run, out, model_id=name or run.name, force=force, **stated)
    typer.echo(
        f"{out}: {card['model_id']}, {card['parameters']:,} parameters, {card['macs'] / 1e6:.0f} M multiply-adds"
    )


def evaluate(
    data: Annotated[Path, typer.Option(help="FER-2013, or a folder with one sub-folder per label.")],
    model: Annotated[Path | None, typer.Option(help="Model folder (default: a shipped model).")] = None,
    model_size: Annotated[ModelSize, SizeOption] = ModelSize.standard,
    backend: Annotated[Backend, BackendOption] = "litert",
    split: Annotated[Split, typer.Option(help="Split of FER-2013.")] = Split.private,
    ferplus: Annotated[Path | None, typer.Option(help="fer2013new.csv of Microsoft FERPlus.")] = None,
    out: Out = Path("evaluation"),
    no_robustness: Annotated[
        bool, typer.Option("--no-robustness", help="Skip blurred, dark and small faces.")
    ] = False,
) -> None:
    """Evaluate a model on labelled faces.

    Writes evaluation.md, evaluation.json and plots.
    """
    from fer_stream.config.settings import ModelSettings
    from fer_stream.factory import available_backends_for, backend_for, make_classifier
    from fer_stream.training import report
    from fer_stream.training.evaluate import HARMS
    from fer_stream.training.evaluate import evaluate as judge

    faces, copied, called = _faces(data, split, ferplus)
    settings = ModelSettings.model_validate({"backend": backend, "path": model, "size": model_size.value})
    judged, timed = backend_for(settings), available_backends_for(settings)
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
        progress=_print_progress,
    )
    path = report.write(found, f"{classifiers[judged].spec.model_id}, {judged}, on {called}", out)
    low, high = found.interval
    typer.echo(f"{found.accuracy:.2%} of {found.faces} faces (95 %: {low:.1%} to {high:.1%}); {path}")


def _faces(data: Path, split: Split, ferplus: Path | None) -> tuple[Faces, NDArray[np.bool_], str]:
    """Return the faces, a mask of those that are copies of training images, and the name of the dataset."""
    from fer_stream.training.dataset import copies, is_plain_folder, load_folder, load_parts

    if is_plain_folder(data):
        faces = load_folder(data, ferplus)
        return faces, copies(faces.images, faces.images[:0]), data.name
    splits = load_parts(data, ferplus)
    faces = splits[split.value]
    seen = splits["train"].images if split is not Split.train else faces.images[:0]
    return faces, copies(faces.images, seen), f"{split.value} of {data.name}"


def _print_progress(text: str) -> None:
    typer.echo(text, err=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog=_TRAIN_EPILOG)(train)
    app.command()(export)
    app.command()(evaluate)
