"""Decoding of a video file: every frame in order, at its PTS, and what is lost (PyAV)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EAGAIN
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.capture.pixel_formats import Display, StreamDisplay
from fer_stream.records import DecodeErrors

if TYPE_CHECKING:
    from fer_stream.capture.source import ReadOptions

# A demuxer with this many consecutive errors makes no progress; with fewer, corrupt files were seen to continue.
_MAX_READ_ERRORS = 100

# Containers round durations, and audio can be slightly longer than video; a larger difference means truncation.
_TRUNCATED_S = 0.5

# Formats whose duration is the time of their end, even if they do not start at 0, like pieces of a recording.
_DURATION_IS_END = {"matroska", "asf", "nut"}

# Used if neither a frame nor its stream has a duration: the rate that FFmpeg assumes for raw streams.
_DEFAULT_FRAME_S = 1 / 25

# Containers with an index; others are read from their beginning.
_SEEKABLE = {"mov", "matroska"}
# A key frame can be displayed later than its place in the index.
_SEEK_MARGIN_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrame:
    """Decoded frame before conversion, how it is displayed, its number in the file and its media time."""

    frame: VideoFrame
    display: Display
    index: int
    time_s: float


def is_seekable(container: InputContainer) -> bool:
    """Return whether FFmpeg finds a time in a container exactly, from an index."""
    return bool(_SEEKABLE.intersection(container.format.name.split(",")))


class Decoder:
    """Decodes the frames of `stream` in `container`, one by one and in order, and counts what is lost.

    Only the part of `options` is decoded, as far as the container allows that; `index` counts its frames.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, options: ReadOptions) -> None:
        self._container = container
        self._stream = stream
        self._options = options
        self._time = _MediaTime(container, stream)
        self._display = StreamDisplay(stream)
        # Before the first packet is read: the index of a fragmented file grows during reading.
        self._declared_frames, self._declared_s = _declared_length(container, stream, self._time.origin)
        self._interlaced = False
        self._ended = False
        self._reason: str | None = None
        self._restart()

    @property
    def decode_errors(self) -> DecodeErrors:
        """Errors so far. Frames that the container declares but does not contain are included at its end."""
        missing = self._missing
        reason = self._reason or (f"{missing} frames are missing" if missing else None)
        truncated = self._ended and self._time.end_s < self._declared_s - _TRUNCATED_S
        return DecodeErrors(max(self._failed, missing) + self._corrupt, reason, truncated)

    @property
    def decoded(self) -> int:
        """Number of frames that were decoded, including those before the part."""
        return self._decoded

    @property
    def end_s(self) -> float:
        """End of the last decoded frame in media seconds."""
        return self._time.end_s

    def frames(self) -> Generator[DecodedFrame]:
        """Yield the frames, each decoded on demand. Errors are counted and skipped."""
        skipped = None
        for decoded in self._frames_from_start():
            if self._options.is_before(decoded.time_s):
                continue
            if self._options.is_after(decoded.time_s):
                return
            if skipped is None:
                skipped = decoded.index
                if skipped:
                    self._failed, self._corrupt, self._reason = 0, 0, None
            yield replace(decoded, index=decoded.index - skipped)
        self._ended = True

    def _restart(self) -> None:
        self._time.restart()
        self._decoded = 0
        self._skipped = 0
        self._failed = 0
        self._corrupt = 0
        self._reason = None

    def _frames_from_start(self) -> Iterator[DecodedFrame]:
        start_s = self._options.start_s - _SEEK_MARGIN_S
        if start_s > 0 and is_seekable(self._container):
            with suppress(av.FFmpegError):
                self._seek(start_s)
                frames = self._all_frames()
                first = next(frames, None)
                if first and first.time_s <= self._options.start_s:
                    yield first
                    yield from frames
                    return
            self._restart()
            self._seek(0)
        yield from self._all_frames()

    def _seek(self, time_s: float) -> None:
        offset = round((self._time.origin + Fraction(time_s)) / (self._stream.time_base or 1))
        self._container.seek(offset, stream=self._stream)

    def _all_frames(self) -> Iterator[DecodedFrame]:
        for packet in self._packets():
            self._skipped += packet.is_discard
            # An empty packet, with which AVI repeats a frame, would signal the end of the stream to the decoder.
            if packet.size:
                yield from self._decode(packet)
        yield from self._decode(None)

    @property
    def _missing(self) -> int:
        """Declared frames that were not decoded: some decoders drop undecodable frames without an error."""
        # The two fields of an interlaced frame can be two packets.
        if not self._ended or self._interlaced or self._options.is_partial:
            return 0
        return max(0, self._declared_frames - self._skipped - self._decoded)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    yield packet
                    errors = 0
            except av.FFmpegError as error:
                self._count_error(error)
                errors += 1
            else:
                return

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[DecodedFrame]:
        try:
            frames = self._stream.decode(packet)
        except av.FFmpegError as error:
            self._count_error(error)
            return
        for frame in frames:
            self._interlaced |= frame.interlaced_frame
            if frame.is_corrupt:
                self._corrupt += 1
                self._reason = self._reason or "parts of a frame were interpolated"
            decoded = DecodedFrame(frame, self._display.of(frame), self._decoded, self._time.of(frame))
            self._decoded += 1
            yield decoded

    def _count_error(self, error: av.FFmpegError) -> None:
        if error.errno == EAGAIN:  # of a thread that FFmpeg could not start; FFmpeg does not return it for data
            raise error
        self._failed += 1
        self._reason = self._reason or error.strerror


class _MediaTime:
    """Converts PTS to seconds since the start of the container, never decreasing."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._base = stream.time_base or Fraction(0)
        self.origin = Fraction(container.start_time or 0, av.time_base)  # start_time is None for raw streams
        self.restart()
        rate = stream.average_rate or stream.guessed_rate
        self._frame_s = float(1 / rate) if rate else _DEFAULT_FRAME_S

    def restart(self) -> None:
        """Forget the previous frame."""
        self.end_s = 0.0
        self._last_s = 0.0

    def of(self, frame: VideoFrame) -> float:
        """Return the media time of the next frame."""
        time_s = self.end_s if frame.pts is None else float(frame.pts * self._base - self.origin)
        if time_s < self._last_s:
            time_s = self.end_s
        self._last_s = time_s
        self.end_s = time_s + (float(frame.duration * self._base) or self._frame_s)
        return time_s


def _declared_length(container: InputContainer, stream: VideoStream, origin: Fraction) -> tuple[int, float]:
    """Return the declared numbers of frames and seconds; 0 if the container declares none or FFmpeg estimates them.

    An index of MP4 is exact and, unlike its frame count, excludes what an edit list excludes. The frame count of an
    AVI includes dropped frames, so only its length is used.
    """
    formats = set(container.format.name.split(","))
    if "mov" in formats and (index := stream.index_entries):
        return len(index), float(index[-1].timestamp * (stream.time_base or 0) - origin)
    if "avi" in formats and stream.average_rate:
        return 0, float(stream.frames / stream.average_rate)
    if formats & {"matroska", "flv"}:
        start_s = float(origin) if formats & _DURATION_IS_END else 0.0
        return 0, (_tagged_duration_s(stream) or (container.duration or 0) / av.time_base) - start_s
    return 0, 0.0


def declared_duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the length that the container declares in seconds, or None."""
    exact = (stream.duration or 0) * (stream.time_base or Fraction(0))
    duration = exact or Fraction(container.duration or 0, av.time_base)
    if _DURATION_IS_END.intersection(container.format.name.split(",")):
        duration -= Fraction(container.start_time or 0, av.time_base)
    return max(0.0, float(duration)) or None


def _tagged_duration_s(stream: VideoStream) -> float:
    """Parse the duration tag of a Matroska track, `00:00:04.040000000`; that of the file may be that of its audio."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0
