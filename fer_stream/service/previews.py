"""Small pictures of the sources that somebody looks at, made beside the work of a capture."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from threading import Event, Lock, Thread

from fer_stream.config import WebSettings
from fer_stream.errors import FerStreamError
from fer_stream.faces.detector import FaceDetector
from fer_stream.outputs.preview import preview_of
from fer_stream.outputs.redaction import HOLD_S
from fer_stream.records import F32, U8, Detections, Frame
from fer_stream.store.protocol import ResultStore

_log = logging.getLogger(__name__)

_ASK_S = 0.5
_AWAY_S = 2.0


class View:
    """What one source shows. Its capture shows it frames, another thread takes pictures from it.

    With `blur` a picture waits for half a second: a face that is found in that time, or was found in the half second
    before, was there. One that no frame gives away is not covered.
    """

    def __init__(self, *, blur: bool, fps: float) -> None:
        self.wanted = False
        self.width: int | None = None
        self.height: int | None = None
        self._blur = blur
        self._period_s = 1 / fps
        self._lock = Lock()
        self._frames: deque[Frame] = deque(maxlen=math.ceil(HOLD_S * fps) + 1 if blur else 1)
        self._found: deque[tuple[float, F32]] = deque()
        self._seen: F32 | None = None

    def through(self, detector: FaceDetector) -> FaceDetector:
        """`detector`, whose faces are known here from now on."""
        return _Overheard(detector, self._hear)

    def show(self, frame: Frame) -> None:
        """Take note of a frame, and of the faces that the detector found in it."""
        self.height, self.width = frame.pixels.shape
        with self._lock:
            if self._found and frame.time_s < self._found[-1][0]:  # a new epoch
                self._found.clear()
                self._frames.clear()
            if self._blur and self._seen is not None:
                self._found.append((frame.time_s, self._seen))
                while frame.time_s - self._found[0][0] > 3 * HOLD_S:
                    self._found.popleft()
            if not self.wanted:
                self._frames.clear()
            elif not self._blur or not self._frames or frame.time_s - self._frames[-1].time_s >= self._period_s:
                self._frames.append(frame)

    def take(self) -> tuple[Frame, list[F32]] | None:
        """The newest frame that can be shown, once, and what is to be covered in it."""
        with self._lock:
            ripe_s = self._found[-1][0] - HOLD_S if self._blur and self._found else math.inf
            ripe = [frame for frame in self._frames if frame.time_s <= ripe_s]
            if not ripe:
                return None
            for _ in ripe:
                self._frames.popleft()
            at_s = ripe[-1].time_s
            return ripe[-1], [box for time_s, boxes in self._found if abs(time_s - at_s) <= HOLD_S for box in boxes]

    def _hear(self, detections: Detections) -> None:
        self._seen = detections.xyxy


class Previews(Thread):
    """Asks who is looked at, and sends pictures of them, until closed."""

    def __init__(self, store: ResultStore, settings: WebSettings) -> None:
        super().__init__(name="previews", daemon=True)
        self._store = store
        self._settings = settings
        self._views: dict[str, View] = {}
        self._closing = Event()

    def view(self, source: str) -> View:
        """The view of `source`, which is new."""
        view = View(blur=self._settings.previews == "blur", fps=self._settings.preview_fps)
        self._views = {**self._views, source: view}
        return view

    def close(self) -> None:
        """Send no more."""
        self._closing.set()

    def run(self) -> None:
        """Work until closed; at once done where there are no pictures to be."""
        if self._settings.previews == "off" or self._settings.port is None:
            return
        pictures = max(1, round(_ASK_S * self._settings.preview_fps))
        while not self._closing.is_set():
            try:
                self._ask()
                for _ in range(pictures):
                    self._send()
                    self._closing.wait(_ASK_S / pictures)
            except FerStreamError as error:
                _log.warning("no pictures for now: %s", error)
                self._closing.wait(_AWAY_S)

    def _ask(self) -> None:
        views = self._views
        watched = self._store.watched(list(views))
        for source, view in views.items():
            view.wanted = source in watched

    def _send(self) -> None:
        for source, view in self._views.items():
            picture = view.take()
            if picture is not None:
                self._store.set_preview(source, preview_of(*picture))


class _Overheard:
    """A detector that somebody listens to."""

    def __init__(self, detector: FaceDetector, hear: Callable[[Detections], None]) -> None:
        self.name = detector.name
        self._detector = detector
        self._hear = hear

    def detect(self, image: U8) -> Detections:
        """As `FaceDetector.detect`."""
        found = self._detector.detect(image)
        self._hear(found)
        return found
