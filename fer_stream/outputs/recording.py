"""Recordings of cameras with provisional labels, as MP4 files of some minutes each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from typing import TYPE_CHECKING

import av

from fer_stream.backoff import Backoff
from fer_stream.errors import OutputError
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import RETRY_MAX_S, RETRY_MIN_S, output_error
from fer_stream.outputs.draw import Annotator, annotate
from fer_stream.outputs.erasure import prune
from fer_stream.outputs.mp4 import SegmentedMp4Writer, recover_partial
from fer_stream.outputs.redaction import Redaction, with_redactions
from fer_stream.records import U8, Frame, LabelledFrame

if TYPE_CHECKING:
    from fer_stream.config.live import RecordingSettings

_log = get_logger(__name__)

# Maximum number of queued items, with and without pixels: two minutes at 30 fps, after which the encoder must hang.
_MAX_ITEMS = 4096

# Pixels that wait for the encoder: five frames of 1920×1080 px, 48 of 640×360 px.
_MAX_QUEUED_BYTES = 32 * 2**20


@dataclass(slots=True, eq=False)
class RecordingItem:
    """A labelled frame, its size (height, width), and its pixels unless they were dropped."""

    labelled: LabelledFrame
    size: tuple[int, int]
    image: U8 | None


class RecordingQueue:
    """FIFO queue that drops the oldest pixels if they exceed `max_bytes`.

    The items of dropped pixels stay in the queue, because redaction needs the positions of the faces in them. For one
    producer and one consumer thread.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self._max_bytes = max_bytes
        self._items: deque[RecordingItem] = deque()
        self._without_pixels = 0
        self._bytes = 0
        self._closed = False
        self._changed = Condition()

    def put(self, item: RecordingItem) -> None:
        """Add an item with its pixels. Never blocks."""
        with self._changed:
            self._items.append(item)
            self._bytes += _bytes(item)
            while self._bytes > self._max_bytes and self._without_pixels < len(self._items) - 1:
                self._drop_pixels(self._items[self._without_pixels])
                self._without_pixels += 1
            if len(self._items) > _MAX_ITEMS:
                self._drop_pixels(self._items[0])
                self._pop()
            self._changed.notify()

    def close(self) -> None:
        """Declare that no more items follow."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def wait(self) -> bool:
        """Wait for an item; return False if the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            return bool(self._items)

    def run(self, max_gap_s: float) -> Iterator[RecordingItem]:
        """Take items until session or size changes, or more than `max_gap_s` passes between two of them."""
        last: RecordingItem | None = None
        while (item := self._take(last, max_gap_s)) is not None:
            yield item
            last = item

    def skip(self) -> None:
        """Take the first item and drop its pixels."""
        with self._changed:
            if self._items:
                self._drop_pixels(self._items[0])
                self._pop()

    def _take(self, last: RecordingItem | None, max_gap_s: float) -> RecordingItem | None:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, max_gap_s)
            if not self._items or (last is not None and _is_break(last, self._items[0], max_gap_s)):
                return None
            return self._pop()

    def _pop(self) -> RecordingItem:
        item = self._items.popleft()
        self._without_pixels = max(0, self._without_pixels - 1)
        self._bytes -= _bytes(item)
        return item

    def _drop_pixels(self, item: RecordingItem) -> None:
        self._bytes -= _bytes(item)
        self.dropped += item.image is not None
        item.image = None


def _is_break(last: RecordingItem, item: RecordingItem, max_gap_s: float) -> bool:
    step_s = item.labelled.time_s - last.labelled.time_s
    same = (last.labelled.stream_id, last.size) == (item.labelled.stream_id, item.size)
    return not same or not 0 <= step_s <= max_gap_s


def _bytes(item: RecordingItem) -> int:
    return 0 if item.image is None else item.image.nbytes


class VideoRecorder:
    """Records one source to `<settings.dir>/<source>/<UTC time of the first frame>.mp4`; `settings.dir` must exist.

    Encodes in a separate thread. A new file begins at multiples of `segment_s` of Unix time, when the frame size or
    the session changes, and after `max_gap_s` without a frame. `written` and `dropped` count frames. While the disk
    cannot be written, frames are dropped, and writing is retried with increasing delays. `clock` returns Unix
    seconds.
    """

    def __init__(
        self, settings: RecordingSettings, source: str, *, clock: Callable[[], float], max_gap_s: float = 2.0
    ) -> None:
        assert settings.dir is not None
        self.written = 0
        self._source = source
        self._directory = settings.dir / source
        self._settings = settings
        self._redaction = Redaction.from_settings(settings.redact)
        self._clock = clock
        self._max_gap_s = max_gap_s
        self._backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, clock=clock)
        self._queue = RecordingQueue(_MAX_QUEUED_BYTES)
        self._lost = 0
        self._stopped = False
        self._errors: deque[OutputError] = deque(maxlen=1)
        self._crash: BaseException | None = None
        self._thread = Thread(target=self._work, name=f"record {source}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Number of frames that were not encoded."""
        return self._queue.dropped + self._lost

    def add(self, frame: Frame, labelled: LabelledFrame) -> None:
        """Add the next frame with its current labels. Never blocks.

        Raises the error since the last call. After an `OutputError`, recording resumes automatically.
        """
        self._queue.put(RecordingItem(labelled, frame.pixels.shape, frame.image))
        self._raise_errors()

    def close(self, timeout_s: float = 5.0) -> None:
        """Complete the last file within `timeout_s`; otherwise the next recorder of the source completes it.

        Raises like `add`.
        """
        self._queue.close()
        self._thread.join(timeout_s)
        self._raise_errors()

    def _raise_errors(self) -> None:
        if self._crash is not None:
            raise self._crash
        if self._errors:
            raise self._errors.popleft()

    def _work(self) -> None:
        try:
            self._attempt(lambda: recover_partial(self._directory))
            while self._queue.wait():
                if self._backoff.active:
                    self._queue.skip()
                else:
                    self._attempt(self._record_run)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the caller
            self._crash = error

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, av.FFmpegError) as error:
            self._backoff.failed()
            self._stopped = True
            self._errors.append(output_error(OSError(error.errno, error.strerror), self._directory))
        else:
            self._backoff.reset()

    def _record_run(self) -> None:
        """Record until the next break."""
        annotator, images = Annotator(), dict[int, U8]()
        try:
            with SegmentedMp4Writer(self._directory, self._settings.segment_s, self._prune) as video:
                for labelled, regions in with_redactions(self._items(images), self._redaction):
                    if labelled.index in images:
                        image = annotate(images[labelled.index], labelled, regions, self._redaction, annotator)
                        video.add(image, labelled.stream_id, labelled.time_s)
                        self._count_written()
                        del images[labelled.index]
        finally:
            self._lost += len(images)

    def _count_written(self) -> None:
        self.written += 1
        if self._stopped:
            self._stopped = False
            _log.info("writing_resumed", output="recording", source=self._source, dropped=self.dropped)

    def _items(self, images: dict[int, U8]) -> Iterator[LabelledFrame]:
        for item in self._queue.run(self._max_gap_s):
            if item.image is not None:
                images[item.labelled.index] = item.image
            yield item.labelled

    def _prune(self) -> None:
        if self._settings.retention_days is not None:
            try:
                prune([self._directory], retention_days=self._settings.retention_days, now_s=self._clock())
            except OutputError as error:
                self._errors.append(error)
