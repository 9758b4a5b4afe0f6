"""Packets → pictures of one video stream in a file, with their times and an account of what was lost (PyAV)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.records import DecodeErrors

# A demuxer that fails so often in a row makes no headway; after fewer errors broken files have been seen to go on.
_MAX_READ_ERRORS = 100

# Containers round durations, and sound may run on a little; what lacks more than this was cut off.
_TRUNCATED_S = 0.5

# Where neither a frame nor its stream tells how long it lasts: the rate that FFmpeg assumes for raw streams.
_FRAME_S = 1 / 25


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded frame, its number in the file and its time."""

    frame: VideoFrame
    index: int
    time_s: float


class Decoder:
    """Takes the pictures of `stream` from `container`, one by one and in order."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._time = _MediaTime(container, stream)
        # Before the first packet: the index of a fragmented file grows while it is read.
        self._claimed_frames, self._claimed_s = _claims(container, stream, self._time.origin)
        self._decoded = 0
        self._hidden = 0
        self._refused = 0
        self._concealed = 0
        self._interlaced = False
        self._ended = False
        self._reason: str | None = None

    @property
    def damage(self) -> DecodeErrors:
        """What was lost so far; only at the end is it known what never came."""
        missing = self._missing
        reason = self._reason or (f"{missing} frames are missing" if missing else None)
        truncated = self._ended and self._time.end_s < self._claimed_s - _TRUNCATED_S
        return DecodeErrors(max(self._refused, missing) + self._concealed, reason, truncated)

    def pictures(self) -> Generator[Picture]:
        """The pictures, each decoded when it is asked for; errors are counted and passed over."""
        for packet in self._packets():
            self._hidden += packet.is_discard
            # The decoder would take an empty packet, with which AVI repeats a frame, for the end of the stream.
            if packet.size:
                yield from self._decode(packet)
        yield from self._decode(None)
        self._ended = True

    @property
    def _missing(self) -> int:
        """Frames that were promised and never came: some decoders drop what they cannot decode without a word."""
        if not self._ended or self._interlaced:  # the two fields of an interlaced frame may be two packets
            return 0
        return max(0, self._claimed_frames - self._hidden - self._decoded)

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    yield packet
                    errors = 0
            except av.FFmpegError as error:
                self._refuse(error)
                errors += 1
            else:
                return

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[Picture]:
        try:
            frames = self._stream.decode(packet)
        except av.FFmpegError as error:
            self._refuse(error)
            return
        for frame in frames:
            self._interlaced |= frame.interlaced_frame
            if frame.is_corrupt:
                self._concealed += 1
                self._reason = self._reason or "parts of a picture had to be guessed"
            picture = Picture(frame, self._decoded, self._time.of(frame))
            self._decoded += 1
            yield picture

    def _refuse(self, error: av.FFmpegError) -> None:
        self._refused += 1
        self._reason = self._reason or error.strerror


class _MediaTime:
    """PTS → seconds since the start of the container, never going backwards."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._base = stream.time_base or Fraction(0)
        self.origin = Fraction(container.start_time or 0, av.time_base)  # None where a raw stream has no times
        self.end_s = 0.0
        self._last_s = 0.0
        rate = stream.average_rate or stream.guessed_rate
        self._frame_s = float(1 / rate) if rate else _FRAME_S

    def of(self, frame: VideoFrame) -> float:
        time_s = self.end_s if frame.pts is None else float(frame.pts * self._base - self.origin)
        if time_s < self._last_s:
            time_s = self.end_s
        self._last_s = time_s
        self.end_s = time_s + (float(frame.duration * self._base) or self._frame_s)
        return time_s


def _claims(container: InputContainer, stream: VideoStream, origin: Fraction) -> tuple[int, float]:
    """How many frames and seconds the container promises; 0 where it does not say, or FFmpeg only guesses.

    An index of MP4 is exact, and unlike its frame count leaves out what an edit list does. The frame count of an AVI
    serves for its length only, as it includes dropped frames.
    """
    formats = set(container.format.name.split(","))
    if "mov" in formats and (index := stream.index_entries):
        return len(index), float(index[-1].timestamp * (stream.time_base or 0) - origin)
    if "avi" in formats and stream.average_rate:
        return 0, float(stream.frames / stream.average_rate)
    if formats & {"matroska", "flv"}:
        return 0, _tagged_duration_s(stream) or (container.duration or 0) / av.time_base
    return 0, 0.0


def _tagged_duration_s(stream: VideoStream) -> float:
    """The duration of one Matroska track, as in `00:00:04.040000000`; that of the file may be its sound's."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]) if match else 0.0
