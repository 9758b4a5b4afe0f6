"""Recording of a source: joins the captured frames with the labels that the timeline computed for them."""

from __future__ import annotations

import time
from collections import deque
from threading import Event, Thread
from typing import TYPE_CHECKING

from fer_stream.backoff import Backoff
from fer_stream.errors import FerStreamError, OutputUnavailable
from fer_stream.log import get_logger
from fer_stream.outputs.atomic_file import RETRY_MAX_S, RETRY_MIN_S, output_error
from fer_stream.outputs.recording import VideoRecorder
from fer_stream.records import Frame, LabelledFrame, stream_start_ms
from fer_stream.store.protocol import ResultStore, position_of

if TYPE_CHECKING:
    from fer_stream.config.live import RecordingSettings

_log = get_logger(__name__)

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
    for recordings does not exist yet; its creation is retried.
    """

    def __init__(
        self, source: str, stream_id: str, store: ResultStore, settings: RecordingSettings, fps: float | None
    ) -> None:
        super().__init__(name=f"recording-{source}", daemon=True)
        assert settings.dir is not None
        self._directory = settings.dir
        self._settings = settings
        self._source = source
        self._store = store
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
            self._frames.popleft()

    def close(self, *, wait_for_labels: bool) -> None:
        """End the recording. With `wait_for_labels`, wait up to 3 s for the labels of the last frames."""
        self._label_timeout_s = _LABEL_TIMEOUT_S if wait_for_labels else 0.0
        self._closing.set()

    def run(self) -> None:
        """Write labelled frames until closed."""
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

    def _take_frame(self, labelled: LabelledFrame) -> Frame | None:
        while self._frames and self._frames[0].index < labelled.index:
            self._frames.popleft()
        if self._frames and self._frames[0].index == labelled.index:
            return self._frames.popleft()
        return None

    def _close(self, recorder: VideoRecorder) -> None:
        try:
            recorder.close()
        except FerStreamError as error:
            self._log_error(error)

    def _log_error(self, error: FerStreamError) -> None:
        if isinstance(error, OutputUnavailable):
            _log.error("writing_stopped", output="recording", source=self._source, error=str(error))
        else:
            _log.error("recording_failed", source=self._source, error=str(error))
