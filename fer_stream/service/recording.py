"""Pictures of a capture, and the labels that the timeline gave them: joined again for a recording."""

from __future__ import annotations

import logging
import time
from collections import deque
from threading import Event, Thread

from fer_stream.backoff import Backoff
from fer_stream.config import RecordingSettings
from fer_stream.errors import FerStreamError
from fer_stream.outputs.backoff import RETRY_MAX_S, RETRY_MIN_S, stopped_by
from fer_stream.outputs.recording import Recorder
from fer_stream.outputs.redaction import Redaction
from fer_stream.records import Frame, LabelledFrame, stream_start_ms
from fer_stream.store.protocol import ResultStore, position_of

_log = logging.getLogger(__name__)

# So long pictures wait for their labels; a timeline process that starts again is back by then.
_PATIENCE_S = 3.0
_MAX_BYTES = 96 * 2**20
_POLL_S = 0.2

# Where no picture came for so long, and for so many, a new file begins.
_GAP_S = 2.0
_GAP_FRAMES = 3


class Recording(Thread):
    """Records one stream of a source. `keep` takes its frames, in order; their labels come from the store.

    A frame whose label does not come in 3 s, or for which there is no room, is in no file. Nor is one that came
    before the folder for recordings could be made, which is tried again and again.
    """

    def __init__(
        self, source: str, stream_id: str, store: ResultStore, settings: RecordingSettings, fps: float | None
    ) -> None:
        super().__init__(name=f"recording-{source}", daemon=True)
        assert settings.dir is not None
        self._folder = settings.dir
        self._settings = settings
        self._source = source
        self._store = store
        self._after = f"{stream_start_ms(stream_id) - 1}-0"
        self._frames: deque[Frame] = deque()
        self._closing = Event()
        self._patience_s = 0.0
        self._max_gap_s = max(_GAP_S, _GAP_FRAMES / fps) if fps else _GAP_S

    def keep(self, frame: Frame) -> None:
        """Keep a frame until its labels are there. Never waits."""
        self._frames.append(frame)
        height, width = frame.pixels.shape
        room = max(1, _MAX_BYTES // (3 * height * width))
        while len(self._frames) > room or frame.time_s - self._frames[0].time_s > _PATIENCE_S:
            self._frames.popleft()

    def close(self, *, patiently: bool) -> None:
        """No frame will follow. The labels of the last ones are waited for, for a moment or as long as usual."""
        self._patience_s = _PATIENCE_S if patiently else 0.0
        self._closing.set()

    def run(self) -> None:
        """Join frames and labels until closed."""
        if not self._folder_is_made():
            return
        recorder = self._recorder()
        while not self._closing.is_set():
            self._record(recorder)
        until_s = time.monotonic() + self._patience_s
        self._record(recorder)
        while self._frames and time.monotonic() < until_s:
            self._record(recorder)
        self._guarded_close(recorder)

    def _folder_is_made(self) -> bool:
        """Make the folder, and wait until that is possible; False where we are closed before."""
        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S)
        while True:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                return True
            except OSError as error:
                _log.error("recording of %s: %s", self._source, stopped_by(error, self._folder))
            backoff.failed()
            while backoff.active:
                if self._closing.wait(_POLL_S):
                    return False

    def _recorder(self) -> Recorder:
        settings = self._settings
        return Recorder(
            self._folder,
            self._source,
            segment_s=settings.segment_s,
            redaction=None if settings.redact == "none" else Redaction(settings.redact),
            retention_days=settings.retention_days,
            clock=time.time,
            max_gap_s=self._max_gap_s,
        )

    def _record(self, recorder: Recorder) -> None:
        try:
            for labelled in self._store.results(self._source, self._after, 100, _POLL_S):
                self._after = position_of(labelled)
                frame = self._frame_of(labelled)
                if frame is not None:
                    recorder.add(frame, labelled)
        except FerStreamError as error:
            _log.error("recording of %s: %s", self._source, error)
            self._closing.wait(_POLL_S)

    def _frame_of(self, labelled: LabelledFrame) -> Frame | None:
        while self._frames and self._frames[0].index < labelled.index:
            self._frames.popleft()
        if self._frames and self._frames[0].index == labelled.index:
            return self._frames.popleft()
        return None

    def _guarded_close(self, recorder: Recorder) -> None:
        try:
            recorder.close()
        except FerStreamError as error:
            _log.error("recording of %s: %s", self._source, error)
