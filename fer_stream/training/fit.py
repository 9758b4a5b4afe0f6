"""Training: from settings to a folder with weights; interrupted runs resume from it.

settings.json   settings of the run
origin.json     inputs: images, duplicates, votes, SHA-256 of initial weights and teachers, precision
history.csv     epoch, loss, PublicTest accuracy, learning rate, seconds, accuracy against the majority of FER+
state.npz       state for the next epoch; removed when the run is finished
best.npz        averaged weights of the best epoch so far on PublicTest; becomes weights.npz when the run is finished
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

import keras
import numpy as np

from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD
from fer_stream.errors import ConfigError, ModelError, OutputExists
from fer_stream.training.batches import Batches, class_shares, make_targets
from fer_stream.training.checkpoints import (
    HISTORY,
    ORIGIN,
    SETTINGS,
    WEIGHTS,
    assign,
    load_net,
    load_values,
    save_values,
    sha256_of,
    warm_start,
)
from fer_stream.training.dataset import Dataset, duplicates, load_splits
from fer_stream.training.evaluate import label_majority
from fer_stream.training.heads import fit_heads
from fer_stream.training.network import DistillationModel, build, compute_in, heads_in, heads_of
from fer_stream.training.progress import DatasetStats, Epoch, Progress, Step, best_epoch, read_history, write_history

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_stream.config.training import TrainSettings
    from fer_stream.records import F32, U8

STATE, BEST = "state.npz", "best.npz"

_PREDICT_BATCH = 512

# Steps timed for each precision, after warm-up steps in which the step is compiled.
_PRECISIONS = ("float32", "bfloat16")
_WARM_UP_STEPS, _TIMED_STEPS = 2, 5


def train(settings: TrainSettings, out: Path, progress: Progress) -> list[Epoch]:
    """Train a network in the folder `out`, or resume an interrupted run with the same settings.

    Raises `OutputExists` if `out` contains another run, `ModelError` if the loss is NaN, `ConfigError` if the data is
    not sufficient for the settings, and the errors of `load_splits`.
    """
    _check_free(out, settings)
    parts = load_splits(settings.data.path, settings.data.ferplus)
    public, private, faces = parts["val"].images, parts["test"].images, parts["train"]
    copied = duplicates(faces.images, np.concatenate([public, private]))
    begun = DatasetStats(
        len(faces), int(copied.sum()), settings.data.drop_copies, int(duplicates(private, public).sum())
    )
    progress(begun)
    if begun.dropped:
        faces = faces[~copied]
    if len(faces) < settings.batch_size:
        raise ConfigError(f"batch_size {settings.batch_size} exceeds the {len(faces)} training images.")
    if settings.freeze == "trunk":
        _check_votes(settings, faces, [])
        _write_settings(out, settings, begun, faces, _select_precision(settings, faces, out))
        return [_train_heads(settings, faces, parts["val"], out, progress)]
    precision = _select_precision(settings, faces, out)
    learner = _make_model(settings, faces, precision)
    batches = Batches(faces, settings)
    _write_settings(out, settings, begun, faces, precision)
    keeper = _Checkpointer(learner, batches, out, parts["val"], progress, settings)
    learner.fit(
        batches, epochs=settings.epochs, initial_epoch=keeper.restore(), shuffle=False, verbose=0,
        callbacks=[keeper, keras.callbacks.TerminateOnNaN(), *_tensorboard(out)],
    )  # fmt: skip
    keeper.finish()
    return keeper.history


def _train_heads(settings: TrainSettings, faces: Dataset, public: Dataset, out: Path, progress: Progress) -> Epoch:
    """Fit the heads of a network with a frozen trunk and save the run; returns the result after the last pass."""
    assert settings.start_from is not None  # validated by the settings
    started = time.monotonic()
    keras.utils.set_random_seed(settings.seed)
    net = _make_net(settings, _select_precision(settings, faces, out))
    kept = {FERPLUS_HEAD} & set(heads_in(load_net(settings.start_from)))
    start = _values(net.variables)
    loss = fit_heads(net, Batches(faces, settings), settings, kept=kept, progress=progress)
    assign(net.variables, _interpolate(start, _values(net.variables), 1 - settings.start_share))
    right, agreed = accuracies(net, public)
    seconds = time.monotonic() - started
    done = Epoch(settings.epochs - 1, loss, right, 0.0, seconds, agreed, settings.targets.votes)
    write_history(out / HISTORY, [done])
    save_values(out / WEIGHTS, _values(net.variables))
    progress(done)
    return done


def _make_model(settings: TrainSettings, faces: Dataset, precision: str) -> DistillationModel:
    """Create the compiled model for `faces`; equal settings give equal models."""
    keras.utils.set_random_seed(settings.seed)
    teachers = [compute_in(load_net(path), precision) for path in settings.teachers.runs]
    _check_votes(settings, faces, teachers)
    shares = class_shares(faces, settings.targets.votes)
    learner = DistillationModel(_make_net(settings, precision), teachers, settings, shares)
    learner.compile(optimizer=_optimizer(settings, len(faces) // settings.batch_size), jit_compile="auto")
    learner.optimizer.build(learner.trainable_variables)
    return learner


def _select_precision(settings: TrainSettings, faces: Dataset, out: Path) -> str:
    """Return the precision of the settings, or of the run in `out`; `auto` is the faster one, float32 if frozen."""
    if settings.precision != "auto" or settings.freeze == "trunk":
        return settings.precision.replace("auto", "float32")
    with suppress(FileNotFoundError, KeyError):
        return str(json.loads((out / ORIGIN).read_text(encoding="utf-8"))["precision"])
    images, targets = faces.images[: settings.batch_size], make_targets(faces[np.arange(settings.batch_size)])
    return min(
        _PRECISIONS, key=lambda precision: _measure_step_s(_make_model(settings, faces, precision), images, targets)
    )


def _measure_step_s(learner: DistillationModel, images: U8, targets: dict[str, np.ndarray]) -> float:
    """Return the median duration of a training step in seconds, after warm-up."""
    times = []
    for _ in range(_WARM_UP_STEPS + _TIMED_STEPS):
        start = time.perf_counter()
        learner.train_on_batch(images, targets)
        times.append(time.perf_counter() - start)
    return median(times[_WARM_UP_STEPS:])


def accuracy(net: keras.Model, faces: Dataset) -> float:
    """Return the share of faces whose label has the highest logit."""
    return accuracies(net, faces)[0]


def accuracies(net: keras.Model, faces: Dataset) -> tuple[float, float | None]:
    """Return the accuracy by FER-2013's label and by the majority of FER+.

    The second is over faces whose majority is a unique one of the seven labels, and None if there are none.
    """
    called = predict(net, faces.images)[FER2013_HEAD].argmax(axis=1)
    majority, known = label_majority(faces.votes)
    agreed = float(np.mean((called == majority)[known])) if known.any() else None
    return float(np.mean(called == faces.labels)), agreed


def predict(net: keras.Model, images: U8) -> dict[str, F32]:
    """Return the logits of all heads, float32 (n, k), for images uint8 (n, 48, 48)."""
    faces = images[..., np.newaxis].astype(np.float32)
    answers: dict[str, F32] | list[F32] = net.predict(faces, batch_size=_PREDICT_BATCH, verbose=0)
    return answers if isinstance(answers, dict) else dict(zip(net.output_names, answers, strict=True))


def _check_votes(settings: TrainSettings, faces: Dataset, teachers: Sequence[keras.Model]) -> None:
    taught = any(FERPLUS_HEAD in heads_in(teacher) for teacher in teachers)
    if FERPLUS_HEAD in heads_of(settings) and not (faces.votes.any() or taught):
        raise ConfigError(
            f"{settings.data.path} has no FER+ votes, which the FER+ head needs. Set data.ferplus to "
            "fer2013new.csv, or ferplus_weight to 0."
        )


def _make_net(settings: TrainSettings, precision: str) -> keras.Model:
    net = build(settings.network, heads=heads_of(settings), weight_decay=settings.weight_decay, precision=precision)
    if settings.start_from:
        warm_start(net, settings.start_from)
    return net


class _Checkpointer(keras.callbacks.SwapEMAWeights):  # type: ignore[misc]
    """Saves each epoch, so that interrupted runs resume; between epochs the network has its averaged weights.

    `start_share` of the initial weights is part of the saved weights.
    """

    def __init__(
        self,
        learner: DistillationModel,
        batches: Batches,
        out: Path,
        public: Dataset,
        progress: Progress,
        settings: TrainSettings,
    ) -> None:
        super().__init__(swap_on_epoch=True)
        self.history: list[Epoch] = []
        self._learner = learner
        self._start_share = settings.start_share
        self._votes = settings.targets.votes
        self._start = _values(learner.net.variables)
        self._batches = batches
        self._out = out
        self._public = public
        self._progress = progress
        self._broken = False
        self._started = 0.0

    def restore(self) -> int:
        """Restore the state on disk and return the next epoch."""
        self.history = read_history(self._out / HISTORY)
        try:
            kept = load_values(self._out / STATE)
        except FileNotFoundError:
            self.history = []
            return 0
        done = int(kept.pop())
        assign(self._variables(), kept)
        self.history = self.history[:done]
        return done

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if epoch == len(self.history) and epoch:
            save_values(self._out / STATE, [*_values(self._variables()), np.array(epoch)])
        self._learner.reseed(epoch)
        self._batches.reseed(epoch)
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        self._broken |= not np.isfinite(loss)
        steps = int(self.params["steps"])
        self._progress(Step(len(self.history), batch + 1, steps))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        super().on_epoch_end(epoch, logs)
        if self._broken:
            return
        kept = _interpolate(self._start, _values(self._learner.net.variables), 1 - self._start_share)
        right, agreed = self._accuracies(kept)
        done = Epoch(
            epoch=epoch,
            loss=float(logs["loss"]),
            accuracy=right,
            learning_rate=float(keras.ops.convert_to_numpy(self._learner.optimizer.learning_rate)),
            seconds=time.monotonic() - self._started,
            majority=agreed,
            votes=self._votes,
        )
        logs["public_accuracy"] = done.accuracy
        self.history.append(done)
        if best_epoch(self.history) is done:
            save_values(self._out / BEST, kept)
        write_history(self._out / HISTORY, self.history)
        self._progress(done)

    def _accuracies(self, weights: Sequence[np.ndarray]) -> tuple[float, float | None]:
        """Return the accuracies of `weights` on PublicTest."""
        net = self._learner.net
        learned = _values(net.variables)
        assign(net.variables, weights)
        found = accuracies(net, self._public)
        assign(net.variables, learned)
        return found

    def finish(self) -> None:
        """Rename the best weights to weights.npz and remove the state."""
        if self._broken:
            raise ModelError(
                f"The loss is NaN in epoch {len(self.history) + 1}. Reduce learning_rate or clip_norm "
                "and use another folder."
            )
        (self._out / BEST).replace(self._out / WEIGHTS)
        (self._out / STATE).unlink(missing_ok=True)

    def _variables(self) -> list[keras.Variable]:
        return [*self._learner.net.variables, *self._learner.optimizer.variables]


def _interpolate(first: Sequence[np.ndarray], last: Sequence[np.ndarray], way: float) -> list[np.ndarray]:
    """Interpolate from `first` (0) to `last` (1). Values that are not floats, such as seeds, are those of `last`."""
    return [
        ((1 - way) * before + way * after).astype(after.dtype) if np.issubdtype(after.dtype, np.floating) else after
        for before, after in zip(first, last, strict=True)
    ]


def _values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _optimizer(settings: TrainSettings, steps: int) -> keras.Optimizer:
    warm_up = round(settings.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warm_up else settings.learning_rate,
        decay_steps=max(1, settings.epochs * steps - warm_up),
        warmup_target=settings.learning_rate if warm_up else None,
        warmup_steps=warm_up,
    )
    return keras.optimizers.SGD(
        schedule, momentum=0.9, nesterov=True, global_clipnorm=settings.clip_norm, use_ema=True,
        ema_momentum=settings.ema, ema_overwrite_frequency=None,
    )  # fmt: skip


def _tensorboard(out: Path) -> Sequence[keras.callbacks.Callback]:
    """Return the TensorBoard callback if TensorFlow and TensorBoard are available."""
    if keras.backend.backend() != "tensorflow" or not find_spec("tensorboard"):
        return ()
    return (keras.callbacks.TensorBoard(str(out / "tensorboard"), update_freq="epoch"),)


def _check_free(out: Path, settings: TrainSettings) -> None:
    """Raise `OutputExists` if `out` contains a finished run, or one with other settings."""
    path = out / SETTINGS
    if path.exists() and path.read_text(encoding="utf-8") != _asked(settings):
        raise OutputExists(
            f"{out} contains a run with other settings. Choose another folder with --out, or remove it."
        )
    if (out / WEIGHTS).exists():
        raise OutputExists(f"{out} contains a finished run. Choose another folder with --out, or remove it.")


def _write_settings(out: Path, settings: TrainSettings, begun: DatasetStats, faces: Dataset, precision: str) -> None:
    """Create the folder `out` and save the settings and the inputs of the run."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(_asked(settings), encoding="utf-8")
    if not (out / ORIGIN).exists():
        origin = {
            "training_images": len(faces),
            "copies_of_test_images": begun.duplicates,
            "copies_left_out": begun.dropped,
            "with_ferplus_votes": bool(faces.votes.any()),
            "start_from_sha256": sha256_of(settings.start_from) if settings.start_from else None,
            "precision": precision,
            "teachers_sha256": [sha256_of(path) for path in settings.teachers.runs],
        }
        (out / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _asked(settings: TrainSettings) -> str:
    return settings.model_dump_json(indent=1)
