"""The classifier on one core, compared with LiteRT's `invoke` alone on the same faces, and its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks.backends import bare
from benchmarks.goals import Goal, Line, Rounds
from benchmarks.material import ROOT, percent, private_test
from benchmarks.rows import Options, available_cores, pinned, require_file
from fer_stream import factory
from fer_stream.config.settings import ModelSettings
from fer_stream.records import U8

_MODEL = ROOT / "models"
_BATCHES = (1, 32)
_MS_PER_FACE = Goal(0.35, at_most=True)
_VS_INVOKE = Goal(1.1, at_most=True)
_ACCURACY = Goal(72.7)
_TIMED_FACES = 64
_PRIVATE_TEST = 3589


def measure(options: Options) -> Iterator[Line]:
    """Measure batches of 1 and 32 faces with the backend that `model.backend: auto` selects on this machine."""
    table = require_file(options.material / "data" / "fer2013.npz")
    faces, labels = private_test(table, _PRIVATE_TEST // 3 if options.quick else _PRIVATE_TEST)
    with pinned(available_cores(1)):
        predict, invoke = factory.make_classifier(ModelSettings(path=_MODEL)).predict, bare(_MODEL, 1)
        for batch in _BATCHES:
            batches = [faces[start : start + batch] for start in range(0, _TIMED_FACES, batch)]
            rounds = Rounds({"predict": partial(_each, predict, batches), "invoke": partial(_each, invoke, batches)})
            rounds.run(3 * options.rounds)
            ms_per_face = tuple(1000 * each / _TIMED_FACES for each in rounds.seconds["predict"])
            yield Line(f"per face, batches of {batch}", ms_per_face, "ms", _MS_PER_FACE)
            yield Line("… relative to LiteRT's `invoke`", rounds.ratio("invoke", "predict"), "×", _VS_INVOKE)
        correct = predict(faces).probs.argmax(axis=1) == labels
    yield Line(f"accuracy on {len(faces):,} images of PrivateTest", (percent(correct),), "%", _ACCURACY)


def _each(predict: Callable[[U8], object], batches: Sequence[U8]) -> None:
    for batch in batches:
        predict(batch)
