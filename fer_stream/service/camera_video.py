"""Recordings and previews of a source, made in threads of the capture process.

A recording joins the captured frames with the labels that the timeline computed for them. Previews are encoded only
for sources that somebody views on the web page.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from fer_stream.backoff import Backoff
from fer_stream.errors import FerStreamError, OutputUnavailable
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import RETRY_MAX_S, RETRY_MIN_S, output_error
from fer_stream.outputs.draw import preview_of
from fer_stream.outputs.recording import VideoRecorder
from fer_stream.outputs.redaction import REDACTION_HOLD_S
from fer_stream.records import Frame, LabelledFrame, stream_start_ms
from fer_stream.store.protocol import ResultStore, position_of

if TYPE_CHECKING:
    from fer_stream.config.live import RecordingSettings
    from fer_stream.config.servers import WebSettings
    from fer_stream.faces.detector import FaceDetector
    from fer_stream.records import F32, U8, Detections, Frame
    from fer_stream.store.protocol import ResultStore


_log = get_logger(__name__)

_REQUEST_POLL_S = 0.5
_RETRY_S = 2.0


class PreviewBuffer:
    """Frames of one source that may be previewed. The capture thread pushes, the publisher pops.

    With `blur`, a frame is delayed by 0.5 s, and faces detected within 0.5 s before or after it are covered. A face
    that is not detected in any of these frames stays visible.
    """

    def __init__(self, *, blur: bool, fps: float) -> None:
        self.requested = False
        self.width: int | None = None
        self.height: int | None = None
        self._blur = blur
        self._period_s = 1 / fps
        self._lock = Lock()
        self._frames: deque[Frame] = deque(maxlen=math.ceil(REDACTION_HOLD_S * fps) + 1 if blur else 1)
        self._boxes: deque[tuple[float, F32]] = deque()
        self._latest_boxes: F32 | None = None

    def wrap(self, detector: FaceDetector) -> FaceDetector:
        """Return `detector` with its detections also recorded in this buffer."""
        return _DetectorTap(detector, self._on_detections)

    def push(self, frame: Frame) -> None:
        """Add a frame, together with the faces that the detector found in it."""
        self.height, self.width = frame.pixels.shape
        with self._lock:
            if self._boxes and frame.time_s < self._boxes[-1][0]:  # a new session
                self._boxes.clear()
                self._frames.clear()
            if self._blur and self._latest_boxes is not None:
                self._boxes.append((frame.time_s, self._latest_boxes))
                while frame.time_s - self._boxes[0][0] > 3 * REDACTION_HOLD_S:
                    self._boxes.popleft()
            if not self.requested:
                self._frames.clear()
            elif not self._blur or not self._frames or frame.time_s - self._frames[-1].time_s >= self._period_s:
                self._frames.append(frame)

    def pop(self) -> tuple[Frame, list[F32]] | None:
        """Return the newest frame that is ready, and the boxes to cover in it, each float32 (4,) xyxy in px."""
        with self._lock:
            ready_until_s = self._boxes[-1][0] - REDACTION_HOLD_S if self._blur and self._boxes else math.inf
            ready = [frame for frame in self._frames if frame.time_s <= ready_until_s]
            if not ready:
                return None
            for _ in ready:
                self._frames.popleft()
            at_s = ready[-1].time_s
            return ready[-1], [
                box for time_s, boxes in self._boxes if abs(time_s - at_s) <= REDACTION_HOLD_S for box in boxes
            ]

    def _on_detections(self, detections: Detections) -> None:
        self._latest_boxes = detections.xyxy


class PreviewPublisher(Thread):
    """Thread that publishes previews of the requested sources until closed."""

    def __init__(self, store: ResultStore, settings: WebSettings) -> None:
        super().__init__(name="previews", daemon=True)
        self._store = store
        self._settings = settings
        self._buffers: dict[str, PreviewBuffer] = {}
        self._closing = Event()

    def buffer(self, source: str) -> PreviewBuffer:
        """Create the buffer of a new source."""
        buffer = PreviewBuffer(blur=self._settings.previews == "blur", fps=self._settings.preview_fps)
        self._buffers = {**self._buffers, source: buffer}
        return buffer

    def remove(self, source: str) -> None:
        """Publish no more previews of a source that was removed."""
        self._buffers = {name: buffer for name, buffer in self._buffers.items() if name != source}

    def close(self) -> None:
        """Stop publishing."""
        self._closing.set()

    def run(self) -> None:
        """Publish until closed. Returns immediately if previews are disabled."""
        if self._settings.previews == "off" or self._settings.port is None:
            return
        publications = max(1, round(_REQUEST_POLL_S * self._settings.preview_fps))
        suspended = False
        while not self._closing.is_set():
            try:
                self._update_requests()
                if suspended:
                    suspended = False
                    _log.info("previews_resumed")
                for _ in range(publications):
                    self._publish()
                    self._closing.wait(_REQUEST_POLL_S / publications)
            except FerStreamError as error:
                suspended = True
                _log.warning("previews_suspended", error=str(error))
                self._closing.wait(_RETRY_S)

    def _update_requests(self) -> None:
        buffers = self._buffers
        requested = self._store.preview_requests(list(buffers))
        for source, buffer in buffers.items():
            buffer.requested = source in requested

    def _publish(self) -> None:
        for source, buffer in self._buffers.items():
            preview = buffer.pop()
            if preview is not None:
                self._store.set_preview(source, preview_of(*preview))


class _DetectorTap:
    """A detector that passes its detections to a callback."""

    def __init__(self, detector: FaceDetector, on_detections: Callable[[Detections], None]) -> None:
        self.spec = detector.spec
        self._detector = detector
        self._on_detections = on_detections

    def detect(self, image: U8) -> Detections:
        """See `FaceDetector.detect`."""
        found = self._detector.detect(image)
        self._on_detections(found)
        return found


# Maximum time that a frame waits for its label. A restarted timeline process is back within it.
_LABEL_TIMEOUT_S = 3.0
_MAX_BYTES = 96 * 2**20
_POLL_S = 0.2

# A gap of this many seconds and frames starts a new file.
_GAP_S = 2.0
_GAP_FRAMES = 3


class RecordingThread(Thread):
    """Records one session of a source. Frames come from `push`, in order, and their labels from the store.

    A frame is left out if its label does not arrive within 3 s, if the buffer (96 MiB) is full, or if the directory
    for recordings does not exist yet; its creation is retried. `on_lost` receives the numbers of these frames, and of
    those that the encoder or the disk dropped.
    """

    def __init__(
        self,
        source: str,
        stream_id: str,
        store: ResultStore,
        settings: RecordingSettings,
        fps: float | None,
        *,
        on_lost: Callable[[int], object] = lambda _: None,
    ) -> None:
        super().__init__(name=f"recording-{source}", daemon=True)
        assert settings.dir is not None
        self._directory = settings.dir
        self._settings = settings
        self._source = source
        self._store = store
        self._on_lost = on_lost
        self._dropped = 0
        self._after = f"{stream_start_ms(stream_id) - 1}-0"
        self._frames: deque[Frame] = deque()
        self._closing = Event()
        self._label_timeout_s = 0.0
        self._max_gap_s = max(_GAP_S, _GAP_FRAMES / fps) if fps else _GAP_S

    def push(self, frame: Frame) -> None:
        """Buffer a frame until its labels arrive. Never blocks."""
        self._frames.append(frame)
        height, width = frame.pixels.shape
        max_frames = max(1, _MAX_BYTES // (3 * height * width))
        while len(self._frames) > max_frames or frame.time_s - self._frames[0].time_s > _LABEL_TIMEOUT_S:
            self._skip_frame()

    def close(self, *, wait_for_labels: bool) -> None:
        """End the recording. With `wait_for_labels`, wait up to 3 s for the labels of the last frames."""
        self._label_timeout_s = _LABEL_TIMEOUT_S if wait_for_labels else 0.0
        self._closing.set()

    def run(self) -> None:
        """Write labelled frames until closed."""
        try:
            self._write()
        finally:
            self._on_lost(len(self._frames))

    def _write(self) -> None:
        if not self._create_directory():
            return
        recorder = VideoRecorder(self._settings, self._source, clock=time.time, max_gap_s=self._max_gap_s)
        while not self._closing.is_set():
            self._record(recorder)
        deadline_s = time.monotonic() + self._label_timeout_s
        self._record(recorder)
        while self._frames and time.monotonic() < deadline_s:
            self._record(recorder)
        self._close(recorder)

    def _create_directory(self) -> bool:
        """Create the directory, with retries. Return False if the recording is closed before that succeeds."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                if backoff.failures:
                    _log.info("writing_resumed", output="recording", source=self._source)
                return True
            except OSError as error:
                self._log_error(output_error(error, self._directory))
            backoff.failed()
            while backoff.active:
                if self._closing.wait(_POLL_S):
                    return False

    def _record(self, recorder: VideoRecorder) -> None:
        try:
            for labelled in self._store.results(self._source, self._after, 100, _POLL_S):
                self._after = position_of(labelled)
                frame = self._take_frame(labelled)
                if frame is not None:
                    recorder.add(frame, labelled)
        except FerStreamError as error:
            self._log_error(error)
            self._closing.wait(_POLL_S)
        self._count_dropped(recorder)

    def _take_frame(self, labelled: LabelledFrame) -> Frame | None:
        while self._frames and self._frames[0].index < labelled.index:
            self._skip_frame()
        if self._frames and self._frames[0].index == labelled.index:
            return self._frames.popleft()
        return None

    def _skip_frame(self) -> None:
        self._frames.popleft()
        self._on_lost(1)

    def _count_dropped(self, recorder: VideoRecorder) -> None:
        dropped = recorder.dropped
        self._on_lost(dropped - self._dropped)
        self._dropped = dropped

    def _close(self, recorder: VideoRecorder) -> None:
        try:
            recorder.close()
        except FerStreamError as error:
            self._log_error(error)
        self._count_dropped(recorder)

    def _log_error(self, error: FerStreamError) -> None:
        if isinstance(error, OutputUnavailable):
            _log.error("writing_stopped", output="recording", source=self._source, error=str(error))
        else:
            _log.error("recording_failed", source=self._source, error=str(error))
