"""What a camera showed, with the labels of the moment drawn in, as MP4 files of some minutes each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Thread

import av

from fer_stream.backoff import Backoff
from fer_stream.errors import OutputError
from fer_stream.outputs.backoff import RETRY_MAX_S, RETRY_MIN_S, output_error
from fer_stream.outputs.draw import Annotator
from fer_stream.outputs.erasure import prune
from fer_stream.outputs.mp4 import SegmentedMp4Writer, recover_partial
from fer_stream.outputs.redaction import Redaction, with_redactions
from fer_stream.outputs.video import annotated
from fer_stream.records import U8, Frame, LabelledFrame

# Shots that wait, with and without pictures: two minutes at 30 fps, after which the encoder must be stuck.
_MAX_SHOTS = 4096


@dataclass(slots=True, eq=False)
class RecordingItem:
    """A labelled frame, the size of its picture (height, width), and the picture unless it was dropped."""

    labelled: LabelledFrame
    size: tuple[int, int]
    image: U8 | None


class RecordingQueue:
    """First in, first out; where pictures of more than `max_bytes` wait, the oldest are dropped.

    Their shots stay: a redaction has to know where the faces were in the pictures that are not shown. For one
    thread that puts and one that takes.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._shots: deque[RecordingItem] = deque()
        self._bare = 0
        self._bytes = 0
        self._closed = False
        self._changed = Condition()

    def put(self, shot: RecordingItem) -> None:
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

    def run(self, max_gap_s: float) -> Iterator[RecordingItem]:
        """Take the shots of one stream and size, no more than `max_gap_s` apart."""
        last: RecordingItem | None = None
        while (shot := self._take(last, max_gap_s)) is not None:
            yield shot
            last = shot

    def skip(self) -> None:
        """Take the first shot and drop its picture."""
        with self._changed:
            if self._shots:
                self._strip(self._shots[0])
                self._pop()

    def _take(self, last: RecordingItem | None, max_gap_s: float) -> RecordingItem | None:
        with self._changed:
            self._changed.wait_for(lambda: self._shots or self._closed, max_gap_s)
            if not self._shots or (last is not None and _breaks(last, self._shots[0], max_gap_s)):
                return None
            return self._pop()

    def _pop(self) -> RecordingItem:
        shot = self._shots.popleft()
        self._bare = max(0, self._bare - 1)
        self._bytes -= _bytes(shot)
        return shot

    def _strip(self, shot: RecordingItem) -> None:
        self._bytes -= _bytes(shot)
        self.dropped += shot.image is not None
        shot.image = None


def _breaks(last: RecordingItem, shot: RecordingItem, max_gap_s: float) -> bool:
    step_s = shot.labelled.time_s - last.labelled.time_s
    same = (last.labelled.stream_id, last.size) == (shot.labelled.stream_id, shot.size)
    return not same or not 0 <= step_s <= max_gap_s


def _bytes(shot: RecordingItem) -> int:
    return 0 if shot.image is None else shot.image.nbytes


# Pictures that wait for the encoder: five of 1920×1080, 48 of 640×360.
_MAX_WAITING_BYTES = 32 * 2**20


class VideoRecorder:
    """Records one source into `<folder>/<source>/<UTC time of the first picture>.mp4`; `folder` must exist.

    Drawing and encoding happen in a thread. Where it cannot keep up, the pictures that have waited longest are
    left out and counted in `dropped`, and so are those that come while the disk is full. A file begins at every
    multiple of `segment_s` of Unix time, where the size of the picture changes, and where none came for
    `max_gap_s`, which must be more than the time between two pictures. Its name begins with a dot while it
    grows. Whatever ends the process, it can be played up to its last two seconds or so, and the next recorder of
    the source gives it its name.

    `redaction` None shows every face; else a frame waits for `redact.HOLD_S` in memory. `retention_days` None
    keeps everything; `clock` tells Unix seconds.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        *,
        segment_s: float,
        redaction: Redaction | None,
        retention_days: int | None,
        clock: Callable[[], float],
        max_gap_s: float = 2.0,
    ) -> None:
        self.written = 0
        self._folder = folder / source
        self._segment_s = segment_s
        self._redaction = redaction
        self._retention_days = retention_days
        self._clock = clock
        self._max_gap_s = max_gap_s
        self._backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, clock=clock)
        self._waiting = RecordingQueue(_MAX_WAITING_BYTES)
        self._lost = 0
        self._faults: deque[OutputError] = deque(maxlen=1)
        self._crash: BaseException | None = None
        self._thread = Thread(target=self._work, name=f"record {source}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Pictures that did not reach the encoder."""
        return self._waiting.dropped + self._lost

    def add(self, frame: Frame, labelled: LabelledFrame) -> None:
        """Take the next frame with the labels that its faces have by now. Never waits.

        Raises what went wrong since the last call: `OutputError`s pass, and recording resumes by itself.
        """
        self._waiting.put(RecordingItem(labelled, frame.pixels.shape, frame.image))
        self._tell()

    def close(self, timeout_s: float = 5.0) -> None:
        """Complete the last file, in `timeout_s` at the most; what takes longer is left to the next recorder.

        Raises as `add`.
        """
        self._waiting.close()
        self._thread.join(timeout_s)
        self._tell()

    def _tell(self) -> None:
        if self._crash is not None:
            raise self._crash
        if self._faults:
            raise self._faults.popleft()

    def _work(self) -> None:
        try:
            self._guarded(lambda: recover_partial(self._folder))
            while self._waiting.wait():
                if self._backoff.active:
                    self._waiting.skip()
                else:
                    self._guarded(self._record_run)
        except BaseException as fault:  # noqa: BLE001 - raised again in the thread of the capture
            self._crash = fault

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, av.FFmpegError) as error:
            self._backoff.failed()
            self._faults.append(output_error(OSError(error.errno, error.strerror), self._folder))
        else:
            self._backoff.reset()

    def _record_run(self) -> None:
        """Record up to the next gap."""
        annotator, pictures = Annotator(), dict[int, U8]()
        try:
            with SegmentedMp4Writer(self._folder, self._segment_s, self._prune) as video:
                for labelled, covers in with_redactions(self._arrivals(pictures), self._redaction):
                    if labelled.index in pictures:
                        picture = annotated(pictures[labelled.index], labelled, covers, self._redaction, annotator)
                        video.add(picture, labelled.stream_id, labelled.time_s)
                        self.written += 1
                        del pictures[labelled.index]
        finally:
            self._lost += len(pictures)

    def _arrivals(self, pictures: dict[int, U8]) -> Iterator[LabelledFrame]:
        for shot in self._waiting.run(self._max_gap_s):
            if shot.image is not None:
                pictures[shot.labelled.index] = shot.image
            yield shot.labelled

    def _prune(self) -> None:
        if self._retention_days is not None:
            try:
                prune([self._folder], retention_days=self._retention_days, now_s=self._clock())
            except OutputError as fault:
                self._faults.append(fault)
