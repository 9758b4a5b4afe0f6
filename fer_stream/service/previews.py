"""Preview images of the sources that are watched on the web page, encoded in a thread of the capture process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING

from fer_stream.errors import FerStreamError
from fer_stream.log import get_logger
from fer_stream.outputs.draw import preview_of
from fer_stream.outputs.redaction import REDACTION_HOLD_S

if TYPE_CHECKING:
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
