"""Selection of the faces that are classified."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fer_stream.faces.classification_sampler import ClassificationSampler

faces = st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=8)


def test_each_person_is_classified_at_the_interval() -> None:
    sampler = ClassificationSampler(0.1)
    selected = [
        (index, person)
        for index in range(8)
        for person in (1, 2)
        if sampler.should_classify(person, index / 24, ok=True)
    ]
    assert selected == [(0, 1), (0, 2), (3, 1), (3, 2), (6, 1), (6, 2)]


def test_an_interval_of_0_classifies_every_face() -> None:
    sampler = ClassificationSampler(0)
    assert all(sampler.should_classify(1, 1.0, ok=True) for _ in range(3))


def test_a_low_quality_face_does_not_use_up_the_interval_of_a_good_one() -> None:
    sampler = ClassificationSampler(0.5)
    assert [sampler.should_classify(1, n / 10, ok=ok) for n, ok in enumerate((False, False, True, True))] == [
        True, False, True, False,
    ]  # fmt: skip


@given(frames=st.lists(faces, max_size=40), interval_s=st.sampled_from([0.0, 0.05, 0.1, 0.4]))
def test_no_person_waits_longer_than_the_interval(frames: list[list[tuple[int, bool]]], interval_s: float) -> None:
    sampler, last = ClassificationSampler(interval_s), dict[tuple[int, bool], float]()
    for index, visible in enumerate(frames):
        time_s = index / 25
        for person, ok in dict(visible).items():
            if sampler.should_classify(person, time_s, ok=ok):
                last[person, False] = time_s
                if ok:
                    last[person, True] = time_s
            assert time_s - last[person, ok] < interval_s + 0.002
