"""Training: it learns, a killed run goes on as if it had not been, and another backend does the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import keras
import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_stream.classify.model_card import FER2013_HEAD, FERPLUS_HEAD
from fer_stream.config.training import (
    AugmentSettings,
    NetworkSettings,
    TargetSettings,
    TeacherSettings,
    TrainSettings,
)
from fer_stream.errors import ConfigError, ModelError, OutputExists, SourceNotFound
from fer_stream.records import LABELS
from fer_stream.training.batches import Batches, class_shares, make_targets
from fer_stream.training.checkpoints import HISTORY, ORIGIN, WEIGHTS, load_run
from fer_stream.training.dataset import VOTES, Dataset, load_splits
from fer_stream.training.fit import BEST, STATE, accuracy, predict, train
from fer_stream.training.network import HEADS, DistillationModel, build, compute_in, heads_in, multiply_adds
from fer_stream.training.progress import DatasetStats, Epoch, best_epoch, read_history, write_history

if TYPE_CHECKING:
    from pathlib import Path


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def run(small: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(small, out, lambda _: None)
    return out


def weights_of(run: Path) -> list[np.ndarray]:
    with np.load(run / WEIGHTS) as file:
        return [file[name] for name in sorted(file.files, key=int)]


def test_short_run_improves(run: Path, small: TrainSettings) -> None:
    _, net = load_run(run)
    assert accuracy(net, load_splits(small.data.path)["test"]) > 0.5
    assert not (run / STATE).exists()


def test_killed_run_resumes_identically(run: Path, small: TrainSettings, tmp_path: Path) -> None:
    def kill(news: object) -> None:
        if isinstance(news, Epoch) and news.epoch == 1:
            raise KilledError

    out = tmp_path / "killed"
    with pytest.raises(KilledError):
        train(small, out, kill)
    begun: list[int] = []
    train(small, out, lambda news: begun.append(news.epoch) if isinstance(news, Epoch) else None)
    assert begun == [1, 2, 3, 4, 5]
    for resumed, unbroken in zip(weights_of(out), weights_of(run), strict=True):
        np.testing.assert_allclose(resumed, unbroken, rtol=1e-3, atol=1e-4)
    lines = [
        [line.split(",")[1] for line in (folder / HISTORY).read_text().splitlines()[1:]] for folder in (out, run)
    ]
    np.testing.assert_allclose(np.array(lines[0], float), np.array(lines[1], float), rtol=1e-3)


def test_resumed_run_is_unfinished_until_its_end(run: Path, small: TrainSettings, tmp_path: Path) -> None:
    seen: list[Path] = []

    def look(news: object) -> None:
        if isinstance(news, Epoch):
            seen.append(tmp_path / BEST)
            assert seen[-1].exists()
            with pytest.raises(ModelError, match="is not a finished training run"):
                load_run(tmp_path)

    train(small.model_copy(update={"epochs": 2}), tmp_path, look)
    assert len(seen) == 2
    load_run(tmp_path)
    assert not (tmp_path / BEST).exists()


def test_invalid_settings_do_not_claim_the_folder(small: TrainSettings, tmp_path: Path) -> None:
    wrong = small.data.model_copy(update={"path": tmp_path / "none.npz"})
    with pytest.raises(SourceNotFound):
        train(small.model_copy(update={"data": wrong}), tmp_path / "run", lambda _: None)
    with pytest.raises(ModelError):
        train(small.model_copy(update={"start_from": tmp_path / "none"}), tmp_path / "run", lambda _: None)
    train(small.model_copy(update={"epochs": 2}), tmp_path / "run", lambda _: None)


def test_origin_of_a_run_is_recorded(run: Path, small: TrainSettings, tmp_path: Path) -> None:
    begun: list[DatasetStats] = []
    taught = small.model_copy(update={"teachers": TeacherSettings(runs=(run,)), "start_from": run, "epochs": 2})
    train(taught, tmp_path / "taught", lambda news: begun.append(news) if isinstance(news, DatasetStats) else None)
    assert begun == [DatasetStats(448, duplicates=0, dropped=True, shared_test_images=0)]
    weights = hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()
    assert json.loads((tmp_path / "taught" / ORIGIN).read_text()) == {
        "training_images": 448, "copies_of_test_images": 0, "copies_left_out": True, "with_ferplus_votes": True,
        "start_from_sha256": weights, "precision": "float32", "teachers_sha256": [weights],
    }  # fmt: skip


def test_duplicates_are_dropped_or_counted(small: TrainSettings, tmp_path: Path) -> None:
    with np.load(small.data.path) as file:
        data = {name: file[name] for name in file.files}
    private = np.flatnonzero(data["usage"] == 2)
    data["images"][:3] = data["images"][private[0]]
    data["images"][np.flatnonzero(data["usage"] == 1)[:2]] = data["images"][private[1]]
    np.savez(tmp_path / "copies.npz", **data)
    for drop, images in ((True, 445), (False, 448)):
        begun: list[DatasetStats] = []
        asked = small.data.model_copy(update={"path": tmp_path / "copies.npz", "drop_copies": drop})
        train(
            small.model_copy(update={"data": asked, "epochs": 2}),
            tmp_path / str(drop),
            lambda news, begun=begun: begun.append(news) if isinstance(news, DatasetStats) else None,  # type: ignore[misc]
        )
        assert begun == [DatasetStats(448, duplicates=3, dropped=drop, shared_test_images=1)]
        assert json.loads((tmp_path / str(drop) / ORIGIN).read_text())["training_images"] == images


def test_missing_votes_are_rejected_unless_disabled(small: TrainSettings, run: Path, tmp_path: Path) -> None:
    with np.load(small.data.path) as file:
        np.savez(tmp_path / "mute.npz", **{name: file[name] for name in file.files if name != "ferplus_votes"})
    asked = small.data.model_copy(update={"path": tmp_path / "mute.npz"})
    mute = small.model_copy(update={"data": asked, "epochs": 2})
    with pytest.raises(ConfigError, match=r"has no FER\+ votes.*ferplus_weight to 0"):
        train(mute, tmp_path / "run", lambda _: None)
    train(mute.model_copy(update={"ferplus_weight": 0.0}), tmp_path / "run", lambda _: None)
    assert heads_in(load_run(tmp_path / "run")[1]) == ["fer2013"]
    for teachers in ((run,), (run, tmp_path / "run")):
        taught = mute.model_copy(update={"teachers": TeacherSettings(runs=teachers)})
        train(taught, tmp_path / f"taught-{len(teachers)}", lambda _: None)
    alone = mute.model_copy(update={"teachers": TeacherSettings(runs=(tmp_path / "run",))})
    with pytest.raises(ConfigError, match=r"has no FER\+ votes"):
        train(alone, tmp_path / "alone", lambda _: None)


def test_training_step_compiles_with_xla(small: TrainSettings, run: Path) -> None:
    """By XLA, which Keras takes where there is a GPU."""
    faces = load_splits(small.data.path)["train"]
    everything = small.model_copy(update={"augment": AugmentSettings(mixup=0.4)})
    learner = DistillationModel(load_run(run)[1], [load_run(run)[1]], everything)
    learner.compile(optimizer="sgd", jit_compile=True)
    history = learner.fit(faces.images, make_targets(faces), batch_size=64, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_tensorboard_contains_the_accuracy(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard" / "train"))
    events.Reload()
    assert {"epoch_loss", "epoch_public_accuracy"} <= set(events.Tags()["tensors"])


def test_folder_of_another_run_is_rejected(run: Path, small: TrainSettings) -> None:
    with pytest.raises(OutputExists, match="contains a finished run"):
        train(small, run, lambda _: None)
    with pytest.raises(OutputExists, match="contains a run with other settings"):
        train(small.model_copy(update={"seed": 9}), run, lambda _: None)


def test_distillation_from_a_teacher(run: Path, small: TrainSettings, tmp_path: Path) -> None:
    taught = small.model_copy(
        update={"teachers": TeacherSettings(runs=(run,)), "epochs": 2, "network": NetworkSettings(widths=(8,))}
    )
    history = train(taught, tmp_path / "taught", lambda _: None)
    assert history[1].loss < history[0].loss


def test_teachers_see_uncorrupted_faces(run: Path, small: TrainSettings) -> None:
    faces = load_splits(small.data.path)["val"].images
    harms = {"shrink": 0.5, "blur": 0.5, "compress": 0.5, "noise": 0.2}
    said = []
    for settings in (dict.fromkeys(harms, 0.0), harms):
        augment = small.augment.model_copy(update=settings)
        learner = DistillationModel(
            load_run(run)[1], [load_run(run)[1]], small.model_copy(update={"augment": augment})
        )
        learner.reseed(0)
        said.append({name: np.asarray(value) for name, value in learner(faces, training=True).items()})
    clean, harmed = said
    np.testing.assert_allclose(clean["taught_fer2013"], harmed["taught_fer2013"], atol=1e-5)
    assert np.abs(clean["fer2013"] - harmed["fer2013"]).max() > 0.5


def test_teacher_is_symmetric_under_mirroring(run: Path, small: TrainSettings) -> None:
    faces = load_splits(small.data.path)["val"].images.copy()
    faces[:, :, 24:] //= 4
    still = AugmentSettings.model_validate(dict.fromkeys(AugmentSettings.model_fields.keys() - {"erase_px"}, 0))
    teacher = load_run(run)[1]
    learner = DistillationModel(load_run(run)[1], [teacher], small.model_copy(update={"augment": still}))
    alone, mirrored = (
        np.asarray(keras.ops.softmax(predict(teacher, view)["fer2013"])) for view in (faces, faces[:, :, ::-1])
    )
    said = np.asarray(learner(faces, training=True)["taught_fer2013"])
    np.testing.assert_allclose(said, (alone + mirrored) / 2, atol=1e-4)
    assert np.abs(said - alone).max() > 0.01


def test_bfloat16_keeps_heads_in_float32(run: Path, small: TrainSettings) -> None:
    faces = load_splits(small.data.path)["val"].images
    exact = predict(load_run(run)[1], faces)
    net = compute_in(load_run(run)[1], "bfloat16")
    assert {variable.dtype for variable in net.weights} == {"float32"}
    rough = predict(net, faces)
    for head, logits in exact.items():
        assert rough[head].dtype == np.float32
        assert 0 < np.abs(rough[head] - logits).max() < 0.05 * np.abs(logits).max()


def test_nan_loss_stops_the_run(small: TrainSettings, tmp_path: Path) -> None:
    wild = small.model_copy(update={"learning_rate": 1e30, "clip_norm": 1e30, "warmup_epochs": 0.0, "epochs": 2})
    with pytest.raises(ModelError, match="The loss is NaN in epoch 1"):
        train(wild, tmp_path / "wild", lambda _: None)


def test_batch_larger_than_the_data_is_rejected(small: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 4096 exceeds the 448 training images"):
        train(small.model_copy(update={"batch_size": 4096}), tmp_path / "large", lambda _: None)


def test_unfinished_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a finished training run"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("settings", "parameters", "macs"),
    [
        (NetworkSettings(), 1_180_000, 117.5e6),
        (NetworkSettings(kind="resnet", widths=(32, 64, 120, 240)), 1_090_000, 33.8e6),
        (NetworkSettings(kind="tutorial", dropout=0.5), 5_530_000, 216.2e6),
    ],
)
def test_networks_have_the_documented_size(settings: NetworkSettings, parameters: int, macs: float) -> None:
    net = build(settings)
    assert net.count_params() == pytest.approx(parameters, rel=0.01)
    assert multiply_adds(net) == pytest.approx(macs, rel=0.01)
    assert {name: head.shape[1] for name, head in net.output.items()} == HEADS


def test_votes_become_shares_of_emotion_votes() -> None:
    votes = np.zeros((3, 10), np.float32)
    votes[0, VOTES.index("happiness")], votes[0, VOTES.index("unknown")] = 6, 4
    votes[1, VOTES.index("NF")] = 10
    targets = make_targets(Dataset(np.zeros((3, 48, 48), np.uint8), np.array([3, 0, 6]), votes))
    assert targets["votes"].sum(axis=1).tolist() == [1, 0, 0]
    assert targets["seven"].argmax(axis=1).tolist() == [3, 0, 6]
    assert targets["seven"].max(axis=1).tolist() == [1, 1, 1]


def test_target_mixes_label_and_votes(run: Path, small: TrainSettings) -> None:
    """Labels that say 0 and people who all say 6: the loss of a net that is sure of either tells their shares."""
    votes = np.zeros((32, len(VOTES)), np.float32)
    votes[:, VOTES.index("neutral")] = 10
    faces = Dataset(np.zeros((32, 48, 48), np.uint8), np.zeros(32, np.int64), votes)
    np.testing.assert_allclose(class_shares(faces, 0.25), [0.75, 0, 0, 0, 0, 0, 0.25])
    learner = DistillationModel(load_run(run)[1], [], _plain(small, votes=0.25))
    logits = np.zeros((32, len(LABELS)), np.float32)
    logits[:, 0] = 5
    said = {"fer2013": keras.ops.convert_to_tensor(logits), "share": keras.ops.ones(32)}
    surprise = -np.log(np.exp(5) / (np.exp(5) + 6)) + 0.25 * 5
    assert float(learner.compute_loss(y=make_targets(faces), y_pred=said)) == pytest.approx(surprise, rel=1e-4)


def test_logit_adjustment_adds_log_class_shares(run: Path, small: TrainSettings) -> None:
    faces = load_splits(small.data.path)["train"][np.arange(32)]
    shares = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    logits = np.random.default_rng(2).normal(0, 1, (32, len(LABELS))).astype(np.float32)
    losses = []
    for by, answer in ((0.5, logits), (0.0, logits + 0.5 * np.log(shares))):
        learner = DistillationModel(load_run(run)[1], [], _plain(small, logit_adjustment=by), shares)
        said = {"fer2013": keras.ops.convert_to_tensor(answer), "share": keras.ops.ones(32)}
        losses.append(float(learner.compute_loss(y=make_targets(faces), y_pred=said)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_adjusted_teacher_gets_the_same_logit_adjustment(run: Path, small: TrainSettings) -> None:
    """The pupil that equals a teacher with the same adjustment has nothing more to learn."""
    faces = load_splits(small.data.path)["val"]
    shares = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    teachers = TeacherSettings(runs=(run,), weight=1.0, logit_adjustment=0.5)
    settings = _plain(small, logit_adjustment=0.5).model_copy(update={"teachers": teachers})
    learner = DistillationModel(load_run(run)[1], [load_run(run)[1]], settings, shares)
    said = learner(faces.images, training=True)
    logits = keras.ops.convert_to_tensor(np.log(np.asarray(said["taught_fer2013"])) - 0.5 * np.log(shares))
    exact = {**said, "fer2013": logits}
    del exact["ferplus"]
    taught = np.asarray(said["taught_fer2013"])
    least = -np.mean(np.sum(taught * np.log(taught), axis=1))
    assert float(learner.compute_loss(y=make_targets(faces), y_pred=exact)) == pytest.approx(least, rel=1e-4)


@pytest.fixture(scope="module")
def frozen(run: Path, small: TrainSettings) -> TrainSettings:
    """Fits the last layer of `run`."""
    return small.model_copy(
        update={
            "start_from": run,
            "freeze": "trunk",
            "epochs": 2,
            "augment": small.augment.model_copy(update={"mixup": 0.0, "video": 0.3}),
            "targets": TargetSettings(votes=0.5, logit_adjustment=0.5),
            "label_smoothing": 0.0,
        }
    )


@pytest.fixture(scope="module")
def fitted(frozen: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "fitted"
    history = train(frozen, out, lambda _: None)
    assert read_history(out / HISTORY) == history
    assert [done.epoch for done in history] == [frozen.epochs - 1]
    return out


def test_frozen_trunk_changes_only_the_head_of_labels(run: Path, fitted: Path) -> None:
    before, after = load_run(run)[1], load_run(fitted)[1]
    for old, new in zip(before.layers, after.layers, strict=True):
        same = all(np.array_equal(a, b) for a, b in zip(old.get_weights(), new.get_weights(), strict=True))
        assert same == (new.name != FER2013_HEAD)


def test_fitting_the_last_layer_is_deterministic(frozen: TrainSettings, fitted: Path, tmp_path: Path) -> None:
    train(frozen, tmp_path / "again", lambda _: None)
    for first, second in zip(weights_of(fitted), weights_of(tmp_path / "again"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_fitted_last_layer_has_the_lowest_loss(run: Path, frozen: TrainSettings, tmp_path: Path) -> None:
    """Without augmentation, small changes of the weights in random directions never reduce the loss."""
    settings = frozen.model_copy(update={"epochs": 1})
    train(settings, tmp_path / "clean", lambda _: None)
    faces = load_splits(settings.data.path)["train"]
    net = load_run(tmp_path / "clean")[1]
    head = net.get_layer(FER2013_HEAD)
    features = keras.Model(net.inputs, head.input).predict(faces.images[..., None].astype(np.float32), verbose=0)
    targets = make_targets(faces)
    target = (np.eye(len(LABELS))[faces.labels] + targets["seven"]) / 2
    deviation = features.std(axis=0)[:, None]

    def loss(kernel: np.ndarray, bias: np.ndarray) -> float:
        logits = features @ kernel.astype(np.float64) + bias + 0.5 * np.log(class_shares(faces, 0.5))
        surprise = np.log(np.exp(logits).sum(axis=1)) - (target * logits).sum(axis=1)
        return float(surprise.mean() + settings.weight_decay / 2 * np.sum((kernel * deviation) ** 2))

    kernel, bias = head.get_weights()
    lowest, rng = loss(kernel, bias), np.random.default_rng(4)
    for _ in range(20):
        steps = rng.normal(0, 0.1, kernel.shape) / np.maximum(deviation, 1e-6), rng.normal(0, 0.1, bias.shape)
        assert loss(kernel + steps[0], bias + steps[1]) > lowest
    before = load_run(run)[1].get_layer(FER2013_HEAD).get_weights()
    assert loss(*before) > lowest


def test_last_layer_gets_a_head_that_its_start_does_not_have(
    small: TrainSettings, frozen: TrainSettings, tmp_path: Path
) -> None:
    train(small.model_copy(update={"ferplus_weight": 0.0, "epochs": 2}), tmp_path / "labels", lambda _: None)
    train(frozen.model_copy(update={"start_from": tmp_path / "labels"}), tmp_path / "both", lambda _: None)
    faces = load_splits(small.data.path)["val"]
    agreed = predict(load_run(tmp_path / "both")[1], faces.images)[FERPLUS_HEAD].argmax(axis=1)
    voted = faces.votes.argmax(axis=1)
    assert np.mean(agreed == voted) > 0.5


@pytest.mark.parametrize("more", [{"teachers": {"runs": ["run"]}}, {"augment": {"mixup": 0.2}}])
def test_freeze_refuses_teachers_and_mixup(small: TrainSettings, more: dict[str, object]) -> None:
    asked = {"data": small.data.model_dump(), "freeze": "trunk", "start_from": "run", **more}
    with pytest.raises(ValueError, match="without teachers"):
        TrainSettings.model_validate(asked)


def test_freeze_needs_start_from(small: TrainSettings) -> None:
    with pytest.raises(ValueError, match="freeze: trunk needs start_from"):
        TrainSettings.model_validate({**small.model_dump(), "freeze": "trunk"})


def test_automatic_precision_is_kept_for_the_whole_run(small: TrainSettings, tmp_path: Path) -> None:
    auto = small.model_copy(update={"precision": "auto", "epochs": 3})
    out = tmp_path / "auto"

    def kill(news: object) -> None:
        if isinstance(news, Epoch) and news.epoch == 1:
            raise KilledError

    with pytest.raises(KilledError):
        train(auto, out, kill)
    origin = json.loads((out / ORIGIN).read_text())
    assert origin["precision"] in ("float32", "bfloat16")
    other = {"float32": "bfloat16", "bfloat16": "float32"}[origin["precision"]]
    (out / ORIGIN).write_text(json.dumps({**origin, "precision": other}))
    train(auto, out, lambda _: None)
    assert json.loads((out / ORIGIN).read_text())["precision"] == other
    assert len(read_history(out / HISTORY)) == 3


def test_teachers_do_not_see_video_degradation(run: Path, small: TrainSettings, tmp_path: Path) -> None:
    """A share of them in each epoch, and the same ones in a run that goes on."""
    settings = small.model_copy(update={"augment": small.augment.model_copy(update={"video": 0.5})})
    faces = load_splits(small.data.path)["train"]
    batches, again = Batches(faces, settings), Batches(faces, settings)
    batches.reseed(1)
    again.reseed(1)
    images = batches[0][0]
    assert images.shape == (32, 48, 48, 2)
    np.testing.assert_array_equal(images, again[0][0])
    harmed = (images[..., 0] != images[..., 1]).any(axis=(1, 2))
    assert 6 < harmed.sum() < 26
    learner = DistillationModel(load_run(run)[1], [load_run(run)[1]], settings)
    said = []
    for view in (images, np.repeat(images[..., :1], 2, axis=-1)):
        learner.reseed(0)
        said.append({name: np.asarray(value) for name, value in learner(view, training=True).items()})
    np.testing.assert_allclose(said[0]["taught_fer2013"], said[1]["taught_fer2013"], atol=1e-5)
    assert np.abs(said[0]["fer2013"] - said[1]["fer2013"]).max() > 0.1
    assert len(train(settings.model_copy(update={"epochs": 2}), tmp_path / "video", lambda _: None)) == 2


def test_kept_epoch_is_the_best_by_the_target() -> None:
    def epoch(number: int, accuracy: float, majority: float, votes: float) -> Epoch:
        return Epoch(number, 1.0, accuracy, 0.1, 1.0, majority, votes)

    pair = ((0.7, 0.7), (0.69, 0.76))
    assert best_epoch([epoch(i, *one, 0.0) for i, one in enumerate(pair)]).epoch == 0
    assert best_epoch([epoch(i, *one, 0.5) for i, one in enumerate(pair)]).epoch == 1
    assert best_epoch([Epoch(0, 1.0, 0.7, 0.1, 1.0), Epoch(1, 1.0, 0.71, 0.1, 1.0)]).epoch == 1


def test_a_history_without_votes_can_still_be_read(tmp_path: Path) -> None:
    epochs = [Epoch(0, 1.0, 0.7, 0.1, 1.0), Epoch(1, 1.0, 0.7, 0.1, 1.0, 0.8, 0.5)]
    write_history(tmp_path / HISTORY, epochs)
    assert read_history(tmp_path / HISTORY) == epochs
    (tmp_path / HISTORY).write_text("epoch,loss,accuracy,learning_rate,seconds\n0,1.0,0.7,0.1,1.0\n")
    assert read_history(tmp_path / HISTORY) == epochs[:1]


def _plain(small: TrainSettings, **targets: float) -> TrainSettings:
    """Settings with these targets whose loss is that of the seven labels alone."""
    changed = {"targets": TargetSettings.model_validate(targets), "label_smoothing": 0.0, "weight_decay": 0.0}
    return small.model_copy(update=changed)


def test_command_runs_on_another_keras_backend(small: TrainSettings, tmp_path: Path) -> None:
    """JAX, where the nets are trained on a GPU; TensorFlow stays out of the process."""
    config = tmp_path / "train.yaml"
    short = {**small.model_dump(mode="json", exclude={"augment"}), "epochs": 2, "warmup_epochs": 0}
    config.write_text(yaml.safe_dump(short), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fer_stream.cli",
            "train",
            "--config",
            str(config),
            "--out",
            str(tmp_path / "jax"),
        ],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "448 training images, 0 of them copies of a test image, left out" in done.stderr
    assert "epoch 2/2: loss" in done.stderr
    assert "PublicTest" in done.stdout
    _, net = load_run(tmp_path / "jax")
    assert net.count_params() == build(small.network).count_params()
    assert keras.backend.backend() == "tensorflow"
