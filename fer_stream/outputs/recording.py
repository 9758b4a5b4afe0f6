"""What a camera showed, with the labels of the moment drawn in, as MP4 files of some minutes each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import av

from fer_stream.backoff import Backoff
from fer_stream.errors import OutputError
from fer_stream.outputs.backoff import RETRY_MAX_S, RETRY_MIN_S, stopped_by
from fer_stream.outputs.draw import Annotator
from fer_stream.outputs.recording_queue import Shot, ShotQueue
from fer_stream.outputs.redaction import Redaction, with_covers
from fer_stream.outputs.retention import prune
from fer_stream.outputs.segmented_mp4 import RollingMp4, reveal_leftovers
from fer_stream.outputs.video import annotated
from fer_stream.records import U8, Frame, LabelledFrame

# Pictures that wait for the encoder: five of 1920×1080, 48 of 640×360.
_MAX_WAITING_BYTES = 32 * 2**20


class Recorder:
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
        self._waiting = ShotQueue(_MAX_WAITING_BYTES)
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
        self._waiting.put(Shot(labelled, frame.pixels.shape, frame.image))
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
            self._guarded(lambda: reveal_leftovers(self._folder))
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
            self._faults.append(stopped_by(OSError(error.errno, error.strerror), self._folder))
        else:
            self._backoff.reset()

    def _record_run(self) -> None:
        """Record up to the next gap."""
        annotator, pictures = Annotator(), dict[int, U8]()
        try:
            with RollingMp4(self._folder, self._segment_s, self._prune) as video:
                for labelled, covers in with_covers(self._arrivals(pictures), self._redaction):
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
