"""NAME.annotated.mp4 and NAME.annotated.png: the source again, with what was seen drawn in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Thread

import av
import av.error
import cv2

from fer_stream.capture.source import FrameSource
from fer_stream.errors import OutputError
from fer_stream.outputs.atomic_file import AtomicFile
from fer_stream.outputs.draw import Annotator
from fer_stream.outputs.mp4 import Mp4File
from fer_stream.outputs.redaction import Redaction, redact_region, with_redactions
from fer_stream.records import F32, U8, Frame, FileSummary, LabelledFrame

OpenSource = Callable[[], FrameSource]

# Frames without pixels that may wait for the encoder: enough to keep it busy, too few to weigh anything.
_MAX_WAITING = 512

# What FFmpeg says of pictures between which lies more time than an MP4 can hold.
_TOO_FAR_APART = (av.error.PatchWelcomeError, av.error.ArgumentError)

# Times that differ by more are not those of the same picture.
_SAME_TIME_S = 0.001


class AnnotatedVideo:
    """NAME.annotated.mp4.

    The source is opened and decoded a second time, by a thread of its own, so that no part of the job has to keep
    pictures until their labels are final. The video holds the frames that were looked at, at their own times; a
    job that looked at none leaves no video.
    """

    def __init__(
        self,
        open_source: OpenSource,
        path: Path,
        *,
        redaction: Redaction | None = None,
        audio_from: Path | None = None,
        force: bool = False,
    ) -> None:
        self.path = path
        self._open_source = open_source
        self._redaction = redaction
        self._audio_from = audio_from
        self._output = AtomicFile(path, force=force)
        self._waiting: Queue[LabelledFrame | FileSummary | None] = Queue(_MAX_WAITING)
        self._summary: FileSummary | None = None
        self._fault: BaseException | None = None
        self._frames = 0
        self._thread = Thread(target=self._work, name=f"annotate {path.name}", daemon=True)
        self._thread.start()

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Hand `frames` to the encoder; waits while it is far behind."""
        for frame in frames:
            self._hand_over(frame)

    def finish(self, summary: FileSummary) -> None:
        """Wait for the encoder, then put the video in place."""
        self._hand_over(summary)
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        if self._frames:
            self._output.commit()
        else:
            self._output.discard()

    def discard(self) -> None:
        """Stop the encoder and leave nothing behind."""
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()
        if self._thread.is_alive():
            self._waiting.put(None)
        self._thread.join()
        self._output.discard()

    def _hand_over(self, item: LabelledFrame | FileSummary) -> None:
        # The encoder may give up while this waits for room.
        while self._thread.is_alive():
            with suppress(Full):
                self._waiting.put(item, timeout=0.1)
                return
        if self._fault is not None:
            raise self._fault

    def _work(self) -> None:
        try:
            with self._output.translate_errors():
                self._encode()
        except av.FFmpegError as error:
            why = ", as it does pictures many hours apart" if isinstance(error, _TOO_FAR_APART) else ""
            self._fault = OutputError(
                f"Cannot write {self._output.path}: FFmpeg refuses it ({error.strerror}){why}. "
                "Leave it out with --no-video."
            )
        except BaseException as fault:  # noqa: BLE001 - raised again in the thread of the job
            self._fault = fault

    def _encode(self) -> None:
        annotator = Annotator()
        with (
            closing(self._open_source()) as source,
            Mp4File(self._output.partial, audio_from=self._audio_from) as video,
        ):
            pictures = source.frames()
            for labelled, covers in with_redactions(self._arrivals(), self._redaction):
                image = _picture_of(labelled, pictures, source)
                if image is None:
                    continue
                video.add(annotated(image, labelled, covers, self._redaction, annotator), labelled.time_s)
                self._frames += 1
            if self._summary is not None:
                video.close(whole_sound=self._summary.stopped is None)

    def _arrivals(self) -> Iterator[LabelledFrame]:
        while isinstance(item := self._waiting.get(), LabelledFrame):
            yield item
        self._summary = item


class AnnotatedImage:
    """NAME.annotated.png, for a still image."""

    def __init__(
        self, open_source: OpenSource, path: Path, *, redaction: Redaction | None = None, force: bool = False
    ) -> None:
        self.path = path
        self._open_source = open_source
        self._redaction = redaction
        self._output = AtomicFile(path, force=force)
        self._png: bytes | None = None

    def write(self, frames: Sequence[LabelledFrame]) -> None:
        """Draw the one frame that a still image has."""
        for labelled, covers in with_redactions(frames, self._redaction):
            with closing(self._open_source()) as source:
                image = _picture_of(labelled, source.frames(), source)
            if image is not None:
                picture = annotated(image, labelled, covers, self._redaction, Annotator())
                self._png = cv2.imencode(".png", picture)[1].tobytes()

    def finish(self, summary: FileSummary) -> None:  # noqa: ARG002 - the picture says everything
        """Put the picture in place; without a frame there is none."""
        if self._png is not None:
            self._output.write([self._png])
        else:
            self._output.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._output.discard()


def _picture_of(labelled: LabelledFrame, pictures: Iterator[Frame], source: FrameSource) -> U8 | None:
    """Walk on in `pictures` to the frame that was labelled.

    None where a damaged source ends before: its last frames may be decoded one time and not the next. Boxes on
    another picture would be wrong, and with redaction would bare faces: better no video than that one.
    """
    for frame in pictures:
        if frame.index == labelled.index and abs(frame.time_s - labelled.time_s) <= _SAME_TIME_S:
            return frame.image
        if frame.index >= labelled.index:
            break
    else:
        if source.decode_errors.packets:
            return None
    raise OutputError(
        f"{source.info.name} gave other pictures when it was read again for the annotated video. "
        "Is it still being written to? Wait until it is whole, or use --no-video."
    )


def annotated(
    image: U8, labelled: LabelledFrame, covers: Sequence[F32], redaction: Redaction | None, annotator: Annotator
) -> U8:
    """A copy of `image`, uint8 (H, W, 3) BGR, with `covers` covered as `redaction` says and the faces drawn in."""
    picture = image.copy()
    if redaction is not None:
        for box in covers:
            redact_region(picture, box, redaction.kind)
    annotator.draw(picture, labelled.faces)
    return picture
