"""Commands `train`, `evaluate` and `models`, and the options that select a model."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_stream.classify.backends import BACKENDS
from fer_stream.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from fer_stream.training.dataset import Dataset
    from fer_stream.training.evaluate_video import ScoredFrame, Stretch, VideoEvaluation


class ModelSize(StrEnum):
    """Models shipped with fer-stream."""

    standard = "standard"
    small = "small"


if TYPE_CHECKING:
    Backend = str
else:  # mypy only accepts literal members
    Backend = StrEnum("Backend", {name: name for name in ("auto", *BACKENDS)})


SizeOption = typer.Option(help="Shipped model; small is for small devices.")
OfflineOption = typer.Option("--offline", help="Do not download the detector (also: FER_STREAM_OFFLINE=1).")
BackendOption = typer.Option(help="Inference backend.")

_TRAIN_EPILOG = """\b
Examples:
  fer-stream train --config train.yaml --out runs/first    the same command resumes the run
  KERAS_BACKEND=jax fer-stream train …                      on another Keras backend
  fer-stream models export runs/first --out my-model
  fer-stream evaluate --model my-model --data fer2013.csv --out evaluation
  fer-stream evaluate --data clips --out evaluation         a folder of clips with a truth.csv
"""


models_app = typer.Typer(help="Export trained models; download and check detector weights.", no_args_is_help=True)


@models_app.command("list")
def list_models() -> None:
    """List available and downloaded weights."""
    from fer_stream import model_files

    for status in model_files.cache_statuses():
        known = status.weights
        typer.echo(
            f"{known.name:15} {status.state:8} {known.size_bytes / 1000:6.0f} kB  {known.licence:5} {status.path}"
        )


@models_app.command()
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


@models_app.command()
def verify() -> None:
    """Verify the SHA-256 of downloaded weights."""
    from fer_stream import model_files

    for status in model_files.verify():
        typer.echo(f"{status.weights.name}: {status.state}")


# Batch sizes of the speed measurement: one face, a partial batch and a full batch.
_BATCHES = (1, 8, 32)


class Split(StrEnum):
    """Splits of FER-2013: Training, PublicTest (validation) and PrivateTest."""

    train = "train"
    val = "val"
    test = "test"


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
    from fer_stream.training.progress import best_epoch

    settings = load(config, TrainSettings)
    from fer_stream.training.fit import train as fit  # loads a Keras backend, so only after the settings are valid

    with TrainingBar(settings.epochs, quiet=quiet) as bar:
        history = fit(settings, out, bar.progress)
    kept = best_epoch(history)
    typer.echo(f"{out}: PublicTest {kept.accuracy:.2%} after epoch {kept.epoch + 1} of {settings.epochs}")


@models_app.command()
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
    data: Annotated[
        Path,
        typer.Option(help="FER-2013, a folder with one sub-folder per label, or a folder of clips with a truth.csv."),
    ],
    model: Annotated[Path | None, typer.Option(help="Model folder (default: a shipped model).")] = None,
    model_size: Annotated[ModelSize, SizeOption] = ModelSize.standard,
    backend: Annotated[Backend, BackendOption] = "litert",
    split: Annotated[Split, typer.Option(help="Split of FER-2013.")] = Split.test,
    ferplus: Annotated[Path | None, typer.Option(help="fer2013new.csv of Microsoft FERPlus.")] = None,
    out: Out = Path("evaluation"),
    no_robustness: Annotated[
        bool, typer.Option("--no-robustness", help="Skip blurred, dark and small faces.")
    ] = False,
    truth: Annotated[
        Path | None,
        typer.Option(help="Video: table of clip, person, label, start_s, end_s, faces (default: DATA/truth.csv)."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Video: YAML settings of `fer-stream run`.")] = None,
    tables: Annotated[
        Path | None,
        typer.Option(help="Video: folder with a CLIP.frames.csv per clip to evaluate instead of the model."),
    ] = None,
) -> None:
    """Evaluate a model on labelled faces or labelled video.

    Faces: writes evaluation.md, evaluation.json and plots. Video (a folder of clips with a truth.csv): writes
    video.md and video.json with the shares of the face time that are right, unknown and wrong.
    """
    model_values = {"backend": str(backend), "path": model, "size": model_size.value}
    if truth or (data / "truth.csv").is_file():
        clips = _Clips(data, truth or data / "truth.csv", config, tables)
        _evaluate_video(clips, model_values, out)
        return
    if config or tables:
        raise ConfigError(f"{data} has no truth.csv. Add one, or name a table of labelled stretches with --truth.")
    from fer_stream.config.settings import ModelSettings
    from fer_stream.factory import available_backends_for, backend_for, make_classifier
    from fer_stream.training import report
    from fer_stream.training.evaluate import CORRUPTIONS, Speed
    from fer_stream.training.evaluate import evaluate as evaluate_faces

    faces, duplicates, title = _load_faces(data, split, ferplus)
    settings = ModelSettings.model_validate(model_values)
    selected, timed = backend_for(settings), available_backends_for(settings)
    classifiers = {
        name: make_classifier(settings.model_copy(update={"backend": name}))
        for name in dict.fromkeys((selected, *timed))
    }
    result = evaluate_faces(
        classifiers[selected].predict,
        faces,
        duplicates=duplicates,
        corruptions=() if no_robustness else tuple(CORRUPTIONS),
        speed=Speed({name: classifiers[name].predict for name in timed}, _BATCHES),
        progress=_print_progress,
    )
    path = report.write(result, f"{classifiers[selected].spec.model_id}, {selected}, on {title}", out)
    low, high = result.interval
    typer.echo(f"{result.accuracy:.2%} of {result.faces} faces (95 %: {low:.1%} to {high:.1%}); {path}")


@dataclass(frozen=True, slots=True)
class _Clips:
    """Labelled clips: their folder, the table of stretches, settings of the analysis, and tables of another tool."""

    folder: Path
    truth: Path
    config: Path | None
    tables: Path | None


def _evaluate_video(clips: _Clips, model_values: Mapping[str, object], out: Path) -> None:
    """Evaluate labels on a folder of clips: those of fer-stream, or those in `clips.tables`."""
    from fer_stream.training import evaluate_video

    stretches = evaluate_video.read_truth(clips.truth)
    if tables := clips.tables:
        result = evaluate_video.score(
            stretches, lambda clip: evaluate_video.read_table(tables / f"{Path(clip).stem}.frames.csv")
        )
        path = evaluate_video.write(result, f"{tables.name} on {clips.folder.name}", None, out)
    else:
        result, path = _analyze_clips(clips, model_values, stretches, out)
    groups = (f"{name} {result.groups[name].summary}" for name in ("expressions", "calm") if name in result.groups)
    typer.echo(f"right / unknown / wrong in percent of the face time: {', '.join(groups)}; {path}")


def _analyze_clips(
    clips: _Clips, model_values: Mapping[str, object], stretches: Sequence[Stretch], out: Path
) -> tuple[VideoEvaluation, Path]:
    from fer_stream.api import analyze_with
    from fer_stream.config.loader import load
    from fer_stream.config.settings import FileSettings
    from fer_stream.factory import select_detector
    from fer_stream.files import FileProcessor
    from fer_stream.training import evaluate_video

    settings = load(clips.config, FileSettings) if clips.config else FileSettings()
    values = {**model_values, "size": None if model_values["size"] == "standard" else model_values["size"]}
    settings = settings.with_values({f"model.{name}": value for name, value in values.items()})
    settings = settings.model_copy(update={"detector": select_detector(settings.detector)})
    processor = FileProcessor(settings)

    def frames_of(clip: str) -> list[ScoredFrame]:
        _print_progress(clip)
        return evaluate_video.scored_frames(analyze_with(processor, clips.folder / clip).frames)

    result = evaluate_video.score(stretches, frames_of)
    names = (processor.classifier.spec.model_id, settings.model.backend, processor.detector.spec.name)
    title = f"{', '.join(names)}, on {clips.folder.name}"
    return result, evaluate_video.write(result, title, settings.model_dump(mode="json"), out)


def _load_faces(data: Path, split: Split, ferplus: Path | None) -> tuple[Dataset, NDArray[np.bool_], str]:
    """Return the faces, a mask of those that are duplicates of training images, and the name of the dataset."""
    from fer_stream.training.dataset import duplicates, is_plain_folder, load_folder, load_splits

    if is_plain_folder(data):
        faces = load_folder(data, ferplus)
        return faces, duplicates(faces.images, faces.images[:0]), data.name
    splits = load_splits(data, ferplus)
    faces = splits[split.value]
    training = splits["train"].images if split is not Split.train else faces.images[:0]
    return faces, duplicates(faces.images, training), f"{split.value} of {data.name}"


def _print_progress(text: str) -> None:
    typer.echo(text, err=True)


def add_to(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command(epilog=_TRAIN_EPILOG)(train)
    app.command()(evaluate)
    app.add_typer(models_app, name="models")
