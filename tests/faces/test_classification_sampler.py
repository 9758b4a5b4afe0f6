"""Whose turn it is to be classified."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.classification_sampler import ClassificationSampler

sights = st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=8)


def test_a_person_has_a_turn_so_often_and_each_their_own() -> None:
    turns = ClassificationSampler(0.1)
    taken = [(index, who) for index in range(8) for who in (1, 2) if turns.should_classify(who, index / 24, ok=True)]
    assert taken == [(0, 1), (0, 2), (3, 1), (3, 2), (6, 1), (6, 2)]


def test_at_zero_it_is_always_everybodys_turn() -> None:
    turns = ClassificationSampler(0)
    assert all(turns.should_classify(1, 1.0, ok=True) for _ in range(3))


def test_a_bad_face_does_not_use_up_the_turn_of_a_good_one() -> None:
    turns = ClassificationSampler(0.5)
    assert [turns.should_classify(1, n / 10, ok=ok) for n, ok in enumerate((False, False, True, True))] == [
        True, False, True, False,
    ]  # fmt: skip


@given(frames=st.lists(sights, max_size=40), every_s=st.sampled_from([0.0, 0.05, 0.1, 0.4]))
def test_nobody_waits_longer_than_a_turn(frames: list[list[tuple[int, bool]]], every_s: float) -> None:
    turns, last = ClassificationSampler(every_s), dict[tuple[int, bool], float]()
    for index, sight in enumerate(frames):
        time_s = index / 25
        for who, ok in dict(sight).items():
            if turns.should_classify(who, time_s, ok=ok):
                last[who, False] = time_s
                if ok:
                    last[who, True] = time_s
            assert time_s - last[who, ok] < every_s + 0.002
