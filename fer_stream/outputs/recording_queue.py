"""Pictures on their way from a camera to an encoder that may be slower."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Condition

from fer_stream.records import U8, LabelledFrame

# Shots that wait, with and without pictures: two minutes at 30 fps, after which the encoder must be stuck.
_MAX_SHOTS = 4096


@dataclass(slots=True, eq=False)
class Shot:
    """A labelled frame, the size of its picture (height, width), and the picture unless it was dropped."""

    labelled: LabelledFrame
    size: tuple[int, int]
    image: U8 | None


class ShotQueue:
    """First in, first out; where pictures of more than `max_bytes` wait, the oldest are dropped.

    Their shots stay: a redaction has to know where the faces were in the pictures that are not shown. For one
    thread that puts and one that takes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._shots: deque[Shot] = deque()
        self._bare = 0
        self._bytes = 0
        self._closed = False
        self._changed = Condition()

    def put(self, shot: Shot) -> None:
        """Add a shot with its picture. Never waits."""
        with self._changed:
            self._shots.append(shot)
            self._bytes += _bytes(shot)
            while self._bytes > self._max_bytes and self._bare < len(self._shots) - 1:
                self._strip(self._shots[self._bare])
                self._bare += 1
            if len(self._shots) > _MAX_SHOTS:
                self._strip(self._shots[0])
                self._pop()
            self._changed.notify()

    def close(self) -> None:
        """Nothing will be put any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def wait(self) -> bool:
        """Wait for a shot; False where the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._shots or self._closed)
            return bool(self._shots)

    def run(self, max_gap_s: float) -> Iterator[Shot]:
        """Take the shots of one stream and size, no more than `max_gap_s` apart."""
        last: Shot | None = None
        while (shot := self._take(last, max_gap_s)) is not None:
            yield shot
            last = shot

    def skip(self) -> None:
        """Take the first shot and drop its picture."""
        with self._changed:
            if self._shots:
                self._strip(self._shots[0])
                self._pop()

    def _take(self, last: Shot | None, max_gap_s: float) -> Shot | None:
        with self._changed:
            self._changed.wait_for(lambda: self._shots or self._closed, max_gap_s)
            if not self._shots or (last is not None and _breaks(last, self._shots[0], max_gap_s)):
                return None
            return self._pop()

    def _pop(self) -> Shot:
        shot = self._shots.popleft()
        self._bare = max(0, self._bare - 1)
        self._bytes -= _bytes(shot)
        return shot

    def _strip(self, shot: Shot) -> None:
        self._bytes -= _bytes(shot)
        self.dropped += shot.image is not None
        shot.image = None


def _breaks(last: Shot, shot: Shot, max_gap_s: float) -> bool:
    step_s = shot.labelled.time_s - last.labelled.time_s
    same = (last.labelled.stream_id, last.size) == (shot.labelled.stream_id, shot.size)
    return not same or not 0 <= step_s <= max_gap_s


def _bytes(shot: Shot) -> int:
    return 0 if shot.image is None else shot.image.nbytes
