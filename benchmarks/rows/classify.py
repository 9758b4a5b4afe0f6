"""The classifier on one core, against LiteRT's bare invoke of the same faces, and how right it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from benchmarks.backends import bare
from benchmarks.goals import Goal, Line, Rounds
from benchmarks.material import ROOT, percent, private_test
from benchmarks.rows import Options, cores, needed, pinned
from fer_stream import factory
from fer_stream.config.settings import ModelSettings
from fer_stream.records import U8

_MODEL = ROOT / "models"
_BATCHES = (1, 32)
_MS_A_FACE = Goal(0.35, at_most=True)
_TO_BARE = Goal(1.1, at_most=True)
_ACCURACY = Goal(72.7)
_TIMED_FACES = 64
_PRIVATE_TEST = 3589


def measure(options: Options) -> Iterator[Line]:
    """One face and 32 at once, by what `model.backend: auto` chooses here."""
    table = needed(options.material / "data" / "fer2013.npz")
    faces, labels = private_test(table, _PRIVATE_TEST // 3 if options.quick else _PRIVATE_TEST)
    with pinned(cores(1)):
        predict, invoke = factory.make_classifier(ModelSettings(path=_MODEL)).predict, bare(_MODEL, 1)
        for batch in _BATCHES:
            parts = [faces[start : start + batch] for start in range(0, _TIMED_FACES, batch)]
            rounds = Rounds({"predict": partial(_each, predict, parts), "bare": partial(_each, invoke, parts)})
            rounds.go(3 * options.rounds)
            ms_a_face = tuple(1000 * each / _TIMED_FACES for each in rounds.seconds["predict"])
            yield Line(f"a face, {batch} at once", ms_a_face, "ms", _MS_A_FACE)
            yield Line("… of LiteRT's bare invoke", rounds.ratio("bare", "predict"), "×", _TO_BARE)
        right = predict(faces).probs.argmax(axis=1) == labels
    yield Line(f"right on {len(faces):,} images of PrivateTest", (percent(right),), "%", _ACCURACY)


def _each(predict: Callable[[U8], object], parts: Sequence[U8]) -> None:
    for part in parts:
        predict(part)
