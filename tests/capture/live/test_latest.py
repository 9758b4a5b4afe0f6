from __future__ import annotations

import threading

from fer_stream.capture.latest import Newest
from fer_stream.records import Gap


def gap(start_s: float, end_s: float, reason: str = "refused") -> Gap:
    return Gap("door", start_s, end_s, reason)


def test_the_newest_wins_and_the_loss_is_told() -> None:
    newest: Newest[str] = Newest()
    assert [newest.put("a"), newest.put("b"), newest.put("c")] == [False, True, True]
    assert newest.take() == "c"
    assert newest.put("d") is False


def test_a_gap_comes_before_the_picture_that_ends_it() -> None:
    newest: Newest[str] = Newest()
    newest.put("before")
    newest.put("after", gap(1, 2))
    assert [newest.take(), newest.take()] == [gap(1, 2), "after"]


def test_gaps_that_nobody_took_become_one() -> None:
    newest: Newest[str] = Newest()
    newest.put("a", gap(1, 2, "stalled"))
    newest.put("b", gap(3, 4, "ended"))
    newest.put("c")
    assert [newest.take(), newest.take()] == [gap(1, 4, "stalled"), "c"]


def test_what_was_left_can_be_taken_after_the_end() -> None:
    newest: Newest[str] = Newest()
    newest.put("last", gap(1, 2))
    newest.close(gap(3, 4))
    newest.put("too late")
    assert [newest.take() for _ in range(4)] == [gap(1, 2), "last", gap(3, 4), None]


def test_closing_wakes_everyone_who_waits() -> None:
    newest: Newest[str] = Newest()
    takers = [threading.Thread(target=newest.take) for _ in range(3)]
    for taker in takers:
        taker.start()
    newest.close()
    for taker in takers:
        taker.join(5)
    assert not any(taker.is_alive() for taker in takers)
