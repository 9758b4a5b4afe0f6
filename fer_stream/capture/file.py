"""Video files: every frame in order, at its PTS, decoded on demand (PyAV)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.capture.discovery import ensure_readable
from fer_stream.capture.pixel_formats import Display, FrameConverter, StreamDisplay
from fer_stream.capture.source import Sampler
from fer_stream.errors import UnreadableSource
from fer_stream.records import DecodeErrors, Frame, SourceInfo, stream_id_of

# Formats with which FFmpeg opens further files or URLs (a protocol whitelist alone does not stop a playlist), and
# tty, which renders any text as a video.
_REJECTED_FORMATS = {
    "concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "tty", "vobsub",
    "webm_dash_manifest",
}  # fmt: skip
_FORMATS = {name for names in av.formats_available for name in names.split(",")} - _REJECTED_FORMATS
_OPEN_OPTIONS = {"format_whitelist": ",".join(sorted(_FORMATS)), "protocol_whitelist": "file"}

# A demuxer with this many consecutive errors makes no progress; with fewer, corrupt files were seen to continue.
_MAX_READ_ERRORS = 100

# Containers round durations, and audio can be slightly longer than video; a larger difference means truncation.
_TRUNCATED_S = 0.5

# Formats whose duration is the time of their end, even if they do not start at 0, like pieces of a recording.
_DURATION_IS_END = {"matroska", "asf", "nut"}

# Used if neither a frame nor its stream has a duration: the rate that FFmpeg assumes for raw streams.
_DEFAULT_FRAME_S = 1 / 25


class VideoFileSource:
    """Frames of one local video file, in any container that FFmpeg reads except playlists.

    `time_s` is PTS minus the start of the container, so that it agrees with the audio. It never decreases; a frame
    without a valid PTS follows the previous frame after its duration. `index` is the number of the frame in the file,
    also if `sampler` skips frames: these are decoded, since others depend on them, but not converted. The rotation
    and mirroring of the display matrix and the sample aspect ratio are applied, so that pixels are square. HDR is
    tone-mapped. Alpha is dropped. The size can change within the file.

    Packets that cannot be decoded are counted and skipped. Frames are decoded on demand with `threads` threads (0:
    one per core). An error in the last frames of a file can lose the few frames that other threads hold at that time.

    Raises `SourceNotFound` if the file does not exist, and `UnreadableSource` if it may not be read, is not a video
    or contains no decodable frame.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        stream_start_ms: int,
        sampler: Sampler | None = None,
        clock: Callable[[], float] = time.time,
        threads: int = 0,
    ) -> None:
        path = Path(path)
        ensure_readable(path)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._sampler = sampler or Sampler(None)
        self._clock = clock
        self._converter = FrameConverter()
        self._container = _open(path)
        try:
            stream = _video_stream(path, self._container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            self._decoder = Decoder(self._container, stream)
            self._decoded = self._decoder.frames()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise UnreadableSource(
                    f"{path} contains no decodable frame ({self.decode_errors.reason or 'its video is empty'}). "
                    "Check that it was copied completely and plays elsewhere."
                )
            self._info = self._describe(name, stream, self._first)
        except BaseException:
            self._container.close()
            raise

    @property
    def info(self) -> SourceInfo:
        """Properties declared by the container; `width` and `height` are those of the first frame as displayed."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """Packets that could not be decoded so far. `truncated` is final at the end of the file."""
        return self._decoder.decode_errors

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order. Can be called once."""
        first, self._first = self._first, None
        for decoded in chain([first] if first else [], self._decoded):
            if self._sampler.accept(decoded.time_s):
                pixels = self._converter.pixels(decoded.frame, decoded.display)
                yield Frame(self.stream_id, decoded.index, decoded.time_s, self._clock(), pixels)

    def close(self) -> None:
        """Release file and decoder. May be called twice, and while `frames()` is suspended."""
        self._first = None
        self._decoded.close()  # before the container: a suspended demuxer would read freed memory
        self._container.close()

    def _describe(self, name: str, stream: VideoStream, first: DecodedFrame) -> SourceInfo:
        height, width = self._converter.shape(first.frame, first.display)
        return SourceInfo(
            name=name,
            kind="video",
            width=width,
            height=height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            frames=stream.frames or None,
            duration_s=_duration_s(self._container, stream),
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.frame.format.name,
        )


@dataclass(frozen=True, slots=True, eq=False)
class DecodedFrame:
    """Decoded frame before conversion, how it is displayed, its number in the file and its media time."""

    frame: VideoFrame
    display: Display
    index: int
    time_s: float


class Decoder:
    """Decodes the frames of `stream` in `container`, one by one and in order, and counts what is lost."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self._time = _MediaTime(container, stream)
        self._display = StreamDisplay(stream)
        # Before the first packet is read: the index of a fragmented file grows during reading.
        self._declared_frames, self._declared_s = _declared_length(container, stream, self._time.origin)
        self._decoded = 0
        self._skipped = 0
        self._failed = 0
        self._corrupt = 0
        self._interlaced = False
        self._ended = False
        self._reason: str | None = None

    @property
    def decode_errors(self) -> DecodeErrors:
        """Errors so far. Frames that the container declares but does not contain are included at its end."""
        missing = self._missing
        reason = self._reason or (f"{missing} frames are missing" if missing else None)
        truncated = self._ended and self._time.end_s < self._declared_s - _TRUNCATED_S
        return DecodeErrors(max(self._failed, missing) + self._corrupt, reason, truncated)

    def frames(self) -> Generator[DecodedFrame]:
        """Yield the frames, each decoded on demand. Errors are counted and skipped."""
        for packet in self._packets():
            self._skipped += packet.is_discard
            # An empty packet, with which AVI repeats a frame, would signal the end of the stream to the decoder.
            if packet.size:
                yield from self._decode(packet)
        yield from self._decode(None)
        self._ended = True

    @property
    def _missing(self) -> int:
        """Declared frames that were not decoded: some decoders drop undecodable frames without an error."""
        if not self._ended or self._interlaced:  # the two fields of an interlaced frame can be two packets
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
        self._failed += 1
        self._reason = self._reason or error.strerror


class _MediaTime:
    """Converts PTS to seconds since the start of the container, never decreasing."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._base = stream.time_base or Fraction(0)
        self.origin = Fraction(container.start_time or 0, av.time_base)  # start_time is None for raw streams
        self.end_s = 0.0
        self._last_s = 0.0
        rate = stream.average_rate or stream.guessed_rate
        self._frame_s = float(1 / rate) if rate else _DEFAULT_FRAME_S

    def of(self, frame: VideoFrame) -> float:
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


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
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


def _open(path: Path) -> InputContainer:
    try:
        # An absolute path cannot be parsed as a URL. Tags in an unknown encoding must not cause an error.
        return av.open(str(path.absolute()), "r", container_options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise UnreadableSource(
            f"{path} is not a video file that FFmpeg can read ({error.strerror}). Check that it was copied "
            "completely; pass the videos of a playlist instead of the playlist."
        ) from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    """Return the default video stream, else the first; cover art is not a video."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UnreadableSource(f"{path} contains no video, only audio or data. Pass a file with a video stream.")
    stream = max(streams, key=lambda s: bool(s.disposition & Disposition.default))
    if not stream.codec_context:
        raise UnreadableSource(f"{path} uses a codec that this FFmpeg cannot decode. Convert it to H.264 first.")
    return stream
