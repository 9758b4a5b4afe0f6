"""NAME.annotated.mp4 and NAME.annotated.png: the source with boxes, labels and bars."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread
from typing import TYPE_CHECKING, Literal

import av
import av.error
import cv2

from fer_stream.capture.source import FrameSource
from fer_stream.errors import OutputError
from fer_stream.outputs.atomic_file import FileOutput
from fer_stream.outputs.audio import AudioClip
from fer_stream.outputs.draw import Annotator, annotate
from fer_stream.outputs.mp4 import Mp4File
from fer_stream.outputs.redaction import Redaction, with_redactions
from fer_stream.records import U8, FileSummary, Frame, LabelledFrame

if TYPE_CHECKING:
    from fer_stream.outputs.registry import OutputContext

OpenSource = Callable[[], FrameSource]

# Frames without pixels that may wait for the encoder: enough to keep it busy, few enough to need little memory.
_MAX_QUEUED = 512

# Errors of FFmpeg for frames that are further apart than an MP4 can represent.
_TOO_FAR_APART = (av.error.PatchWelcomeError, av.error.ArgumentError)

# Tolerance when comparing the time of a frame in both passes.
_TOLERANCE_S = 0.001


class AnnotatedVideo(FileOutput):
    """NAME.annotated.mp4.

    The source is opened and decoded again in a separate thread, so that no frames have to be stored until their
    labels are final. The video contains the analysed frames at their own times, counted from the start of the part
    that is analysed. No video is written if no frame was analysed.
    """

    def __init__(
        self,
        open_source: OpenSource,
        path: Path,
        *,
        redaction: Redaction | None = None,
        audio_from: AudioClip | None = None,
        force: bool = False,
    ) -> None:
        super().__init__(path, force=force)
        self._open_source = open_source
        self._redaction = redaction
        self._audio_from = audio_from
        self._queue: Queue[LabelledFrame | FileSummary | None] = Queue(_MAX_QUEUED)
        self._summary: FileSummary | None = None
        self._error: BaseException | None = None
        self._frames = 0
        self._thread = Thread(target=self._run, name=f"annotate {path.name}", daemon=True)
        self._thread.start()

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Pass `frames` to the encoder; blocks while its queue is full."""
        for frame in frames:
            self._put(frame)

    def finish(self, summary: FileSummary) -> None:
        """Wait for the encoder and complete the video."""
        self._put(summary)
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._frames:
            self._output.complete()

    def discard(self) -> None:
        """Stop the encoder and remove the incomplete video."""
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        if self._thread.is_alive():
            self._queue.put(None)
        self._thread.join()
        super().discard()

    def _put(self, item: LabelledFrame | FileSummary) -> None:
        # The encoder may fail while this waits for space.
        while self._thread.is_alive():
            with suppress(Full):
                self._queue.put(item, timeout=0.1)
                return
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._output.translate_errors():
                self._encode()
        except av.FFmpegError as error:
            cause = ", probably because frames are many hours apart" if isinstance(error, _TOO_FAR_APART) else ""
            self._error = OutputError(
                f"Cannot write {self._output.path}: FFmpeg failed ({error.strerror}){cause}. "
                "Omit the video with --no-video."
            )
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the caller
            self._error = error

    def _encode(self) -> None:
        annotator = Annotator()
        with (
            closing(self._open_source()) as source,
            Mp4File(self._output.partial, audio_from=self._audio_from) as video,
        ):
            frames = source.frames()
            for labelled, regions in with_redactions(self._queued_frames(), self._redaction):
                image = _matching_image(labelled, frames, source)
                if image is None:
                    continue
                annotated = annotate(image, labelled, regions, self._redaction, annotator)
                video.add(annotated, max(0.0, labelled.time_s - source.info.start_s))
                self._frames += 1
            if self._summary is not None:
                video.close(full_audio=self._summary.stopped is None)

    def _queued_frames(self) -> Iterator[LabelledFrame]:
        while isinstance(item := self._queue.get(), LabelledFrame):
            yield item
        self._summary = item


class AnnotatedImage(FileOutput):
    """NAME.annotated.png, for a still image."""

    def __init__(
        self, open_source: OpenSource, path: Path, *, redaction: Redaction | None = None, force: bool = False
    ) -> None:
        super().__init__(path, force=force)
        self._open_source = open_source
        self._redaction = redaction
        self._png: bytes | None = None

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Draw the single frame of a still image."""
        for labelled, regions in with_redactions(frames, self._redaction):
            with closing(self._open_source()) as source:
                image = _matching_image(labelled, source.frames(), source)
            if image is not None:
                annotated = annotate(image, labelled, regions, self._redaction, Annotator())
                self._png = cv2.imencode(".png", annotated)[1].tobytes()

    def finish(self, summary: FileSummary) -> None:  # noqa: ARG002 - the image contains the frame only
        """Write the image; without a frame there is none."""
        if self._png is not None:
            self._output.write([self._png])


def create(
    path: Path,
    context: OutputContext,
    *,
    redact: Literal["none", "blur", "black"],
    redact_persons: Collection[int] | None,
) -> AnnotatedVideo | AnnotatedImage:
    """Create the annotated video of a file, or the annotated image of a still image."""
    redaction = Redaction.from_settings(redact, redact_persons)
    if context.info.kind == "image":
        return AnnotatedImage(context.open_source, path, redaction=redaction, force=context.force)
    return AnnotatedVideo(
        context.open_source,
        path,
        redaction=redaction,
        audio_from=AudioClip(context.input_path, context.info.start_s, context.info.end_s),
        force=context.force,
    )


def _matching_image(labelled: LabelledFrame, frames: Iterator[Frame], source: FrameSource) -> U8 | None:
    """Advance `frames` to the frame that was labelled; return its pixels, uint8 (H, W, 3) BGR.

    Returns None if a damaged source ends before it: its last frames are not decoded reliably. Raises `OutputError` if
    the frames differ from the first pass: boxes would be in the wrong place, and redaction would miss faces.
    """
    for frame in frames:
        if frame.index == labelled.index and abs(frame.time_s - labelled.time_s) <= _TOLERANCE_S:
            return frame.image
        if frame.index >= labelled.index:
            break
    else:
        if source.decode_errors.packets:
            return None
    raise OutputError(
        f"{source.info.name} had other frames when it was read again for the annotated video. If it is still being "
        "written, wait until it is complete; otherwise omit the video with --no-video."
    )
