"""The hand-over from a camera to whoever works on its pictures: the newest wins."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Generic, TypeVar

from fer_stream.records import Gap

T = TypeVar("T")


class Newest(Generic[T]):
    """Room for one picture and for the gap before it, between one thread that puts and one that takes.

    A slow taker gets fewer pictures, never older ones.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._gap: Gap | None = None
        self._picture: T | None = None
        self._last: Gap | None = None
        self._closed = False

    def put(self, picture: T, gap: Gap | None = None) -> bool:
        """Leave a picture and the gap before it, if there was one. Did it push out a picture that nobody took?

        A gap that nobody took grows to hold the new one too. After `close` nothing is left.
        """
        with self._changed:
            if self._closed:
                return False
            pushed_out = self._picture is not None
            self._picture = picture
            self._gap = replace(self._gap, end_s=gap.end_s) if self._gap and gap else self._gap or gap
            self._changed.notify()
        return pushed_out

    def take(self) -> Gap | T | None:
        """Wait for what comes next: a gap, the picture behind it; None once all is taken after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._picture is not None)
            if self._gap is not None:
                gap, self._gap = self._gap, None
                return gap
            if self._picture is not None:
                picture, self._picture = self._picture, None
                return picture
            last, self._last = self._last, None
            return last

    def close(self, gap: Gap | None = None) -> None:
        """Nothing comes any more but `gap`, in which the source ends. What lies here can still be taken."""
        with self._changed:
            self._closed, self._last = True, gap
            self._changed.notify_all()
