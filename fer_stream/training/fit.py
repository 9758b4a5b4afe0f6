"""Training: from settings to a folder with weights, which an interrupted run goes on from.

settings.json   what was asked for
origin.json     what it began with: images, copies, votes, SHA-256 of the first weights and the teachers
history.csv     epoch, loss, PublicTest accuracy, learning rate, seconds
state.npz       everything that the next epoch needs; gone when the run is done
best.npz        the averaged weights of the best epoch so far, by PublicTest; when the run is done, weights.npz
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD
from fer_stream.config.training import TrainSettings
from fer_stream.errors import ConfigError, ModelError, OutputExists
from fer_stream.records import F32, FERPLUS, U8
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
    start_from,
)
from fer_stream.training.dataset import Faces, copies, load_parts
from fer_stream.training.distillation import Learner
from fer_stream.training.network import build, compute_in, heads_in, heads_of
from fer_stream.training.progress import Begun, Epoch, Progress, Step, best, read_history, write_history

STATE, BEST = "state.npz", "best.npz"

_PREDICT_BATCH = 512


def train(settings: TrainSettings, out: Path, progress: Progress) -> list[Epoch]:
    """Train a net into the folder `out`, or go on where an interrupted run with the same settings stood.

    Raises `OutputExists` where `out` holds another run, `ModelError` where the loss is no number any more,
    `ConfigError` where the data is too little for the settings, and what `load_parts` raises.
    """
    _check_free(out, settings)
    parts = load_parts(settings.data.path, settings.data.ferplus)
    public, private, faces = parts["public"].images, parts["private"].images, parts["train"]
    copied = copies(faces.images, np.concatenate([public, private]))
    begun = Begun(len(faces), int(copied.sum()), settings.data.drop_copies, int(copies(private, public).sum()))
    progress(begun)
    if begun.dropped:
        faces = faces[~copied]
    if len(faces) < settings.batch_size:
        raise ConfigError(f"batch_size {settings.batch_size} is more than the {len(faces)} training images.")
    keras.utils.set_random_seed(settings.seed)
    teachers = [compute_in(load_net(path), settings.precision) for path in settings.teachers.runs]
    _check_votes(settings, faces, teachers)
    learner = Learner(_first_net(settings), teachers, settings)
    steps = len(faces) // settings.batch_size
    learner.compile(optimizer=_optimizer(settings, steps), jit_compile="auto")
    learner.optimizer.build(learner.trainable_variables)
    batches = _Batches(faces, settings)
    _claim(out, settings, begun, faces)
    keeper = _Keeper(learner, batches, out, parts["public"], progress, settings.start_share)
    learner.fit(
        batches, epochs=settings.epochs, initial_epoch=keeper.restore(), shuffle=False, verbose=0,
        callbacks=[keeper, keras.callbacks.TerminateOnNaN(), *_tensorboard(out)],
    )  # fmt: skip
    keeper.finish()
    return keeper.history


def accuracy(net: keras.Model, faces: Faces) -> float:
    """Share of the faces whose label has the highest logit."""
    logits = predict(net, faces.images)[FER2013_HEAD]
    return float(np.mean(logits.argmax(axis=1) == faces.labels))


def predict(net: keras.Model, images: U8) -> dict[str, F32]:
    """uint8 (n, 48, 48) → the logits of all heads, float32 (n, k)."""
    faces = images[..., np.newaxis].astype(np.float32)
    answers: dict[str, F32] | list[F32] = net.predict(faces, batch_size=_PREDICT_BATCH, verbose=0)
    return answers if isinstance(answers, dict) else dict(zip(net.output_names, answers, strict=True))


def _check_votes(settings: TrainSettings, faces: Faces, teachers: Sequence[keras.Model]) -> None:
    taught = any(FERPLUS_HEAD in heads_in(teacher) for teacher in teachers)
    if FERPLUS_HEAD in heads_of(settings) and not (faces.votes.any() or taught):
        raise ConfigError(
            f"{settings.data.path} has no votes of FER+, from which the net would learn when not to answer. Name "
            "fer2013new.csv in data.ferplus, or do without with ferplus_weight: 0."
        )


def _first_net(settings: TrainSettings) -> keras.Model:
    net = build(
        settings.network, heads=heads_of(settings), weight_decay=settings.weight_decay, precision=settings.precision
    )
    if settings.start_from:
        start_from(net, settings.start_from)
    return net


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Training faces in an order that depends on seed and epoch alone; an incomplete batch is left out."""

    def __init__(self, faces: Faces, settings: TrainSettings) -> None:
        super().__init__()
        self._faces = faces
        self._targets = targets_of(faces)
        self._settings = settings
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Put the faces into the order of this epoch. Keras calls `on_epoch_end` before the first one, too."""
        self._order = np.random.default_rng((self._settings.seed, epoch)).permutation(len(self._faces))

    def __len__(self) -> int:
        return len(self._faces) // self._settings.batch_size

    def __getitem__(self, number: int) -> tuple[U8, dict[str, np.ndarray]]:
        size = self._settings.batch_size
        rows = self._order[number * size : (number + 1) * size]
        return self._faces.images[rows], {name: target[rows] for name, target in self._targets.items()}


def targets_of(faces: Faces) -> dict[str, np.ndarray]:
    """What a net shall say: `label` int32 (n,); `votes` float32 (n, 8), shares among the emotions of FER+, rows of 0
    where nobody was asked or nobody saw one.
    """
    emotions = faces.votes[:, : len(FERPLUS)]
    voices = np.maximum(emotions.sum(axis=1), 1)
    return {
        "label": faces.labels.astype(np.int32),
        "votes": emotions / voices[:, np.newaxis],
    }


class _Keeper(keras.callbacks.SwapEMAWeights):  # type: ignore[misc]
    """Writes down each epoch, so that a killed run goes on; between epochs the net has its averaged weights.

    The net is made with the weights that it starts from, which have their part in what is kept.
    """

    def __init__(
        self, learner: Learner, batches: _Batches, out: Path, public: Faces, progress: Progress, start_share: float
    ) -> None:
        super().__init__(swap_on_epoch=True)
        self.history: list[Epoch] = []
        self._learner = learner
        self._start_share = start_share
        self._start = _values(learner.net.variables)
        self._batches = batches
        self._out = out
        self._public = public
        self._progress = progress
        self._broken = False
        self._started = 0.0

    def restore(self) -> int:
        """Go on from the state on disk; which epoch comes next."""
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
        self._learner.begin(epoch)
        self._batches.begin(epoch)
        self._started = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        self._broken |= not np.isfinite(loss)
        steps = int(self.params["steps"])
        self._progress(Step(len(self.history), batch + 1, steps, loss))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        super().on_epoch_end(epoch, logs)
        if self._broken:
            return
        kept = _between(self._start, _values(self._learner.net.variables), 1 - self._start_share)
        done = Epoch(
            epoch=epoch,
            loss=float(logs["loss"]),
            accuracy=self._accuracy(kept),
            learning_rate=float(keras.ops.convert_to_numpy(self._learner.optimizer.learning_rate)),
            seconds=time.monotonic() - self._started,
        )
        logs["public_accuracy"] = done.accuracy
        self.history.append(done)
        if best(self.history) is done:
            save_values(self._out / BEST, kept)
        write_history(self._out / HISTORY, self.history)
        self._progress(done)

    def _accuracy(self, weights: Sequence[np.ndarray]) -> float:
        """That of these weights, on PublicTest."""
        net = self._learner.net
        learned = _values(net.variables)
        assign(net.variables, weights)
        found = accuracy(net, self._public)
        assign(net.variables, learned)
        return found

    def finish(self) -> None:
        """The run is done: its weights get their name, and what only its going on needed falls away."""
        if self._broken:
            raise ModelError(
                f"The loss is no number any more in epoch {len(self.history) + 1}. Lower learning_rate or clip_norm "
                "and train into another folder."
            )
        (self._out / BEST).replace(self._out / WEIGHTS)
        (self._out / STATE).unlink(missing_ok=True)

    def _variables(self) -> list[keras.Variable]:
        return [*self._learner.net.variables, *self._learner.optimizer.variables]


def _between(first: Sequence[np.ndarray], last: Sequence[np.ndarray], way: float) -> list[np.ndarray]:
    """So far on the way from the `first` weights, 0, to the `last`, 1. What is no weight, as a seed, is the last."""
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
    """Its curves need TensorFlow and TensorBoard; history.csv is there in any case."""
    if keras.backend.backend() != "tensorflow" or not find_spec("tensorboard"):
        return ()
    return (keras.callbacks.TensorBoard(str(out / "tensorboard"), update_freq="epoch"),)


def _check_free(out: Path, settings: TrainSettings) -> None:
    """Raises `OutputExists` where `out` holds anything but the beginning of this very run."""
    path = out / SETTINGS
    if path.exists() and path.read_text(encoding="utf-8") != _asked(settings):
        raise OutputExists(f"{out} holds a run with other settings. Name another folder with --out, or remove it.")
    if (out / WEIGHTS).exists():
        raise OutputExists(f"{out} holds a finished run. Name another folder with --out, or remove it.")


def _claim(out: Path, settings: TrainSettings, begun: Begun, faces: Faces) -> None:
    """Make `out` the folder of this run, and write down what it began with, which may be another thing tomorrow."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(_asked(settings), encoding="utf-8")
    if not (out / ORIGIN).exists():
        origin = {
            "training_images": len(faces),
            "copies_of_test_images": begun.copies,
            "copies_left_out": begun.dropped,
            "with_ferplus_votes": bool(faces.votes.any()),
            "start_from_sha256": sha256_of(settings.start_from) if settings.start_from else None,
            "teachers_sha256": [sha256_of(path) for path in settings.teachers.runs],
        }
        (out / ORIGIN).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")


def _asked(settings: TrainSettings) -> str:
    return settings.model_dump_json(indent=1)
