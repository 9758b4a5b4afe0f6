"""Video files as sources of frames, decoded on demand (PyAV)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from fer_stream.capture.decoder import DecodedFrame, Decoder, declared_duration_s
from fer_stream.capture.discovery import ensure_readable
from fer_stream.capture.pixel_formats import FrameConverter
from fer_stream.capture.source import EVERYTHING, ReadOptions, Sampler
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


class VideoFileSource:
    """Frames of one local video file, in any container that FFmpeg reads except playlists.

    `time_s` is PTS minus the start of the container, so that it agrees with the audio. It never decreases; a frame
    without a valid PTS follows the previous frame after its duration. `index` is the number of the frame in the part
    of the file that `options` select, also if their `fps` skips frames: these are decoded, since others depend on
    them, but not converted. The rotation and mirroring of the display matrix and the sample aspect ratio are applied,
    so that pixels are square. HDR is tone-mapped. Alpha is dropped. The size can change within the file.

    Packets that cannot be decoded are counted and skipped. Frames are decoded on demand with `threads` threads (0:
    one per core). An error in the last frames of a file can lose the few frames that other threads hold at that time.

    Raises `SourceNotFound` if the file does not exist, and `UnreadableSource` if it may not be read, is not a video
    or contains no decodable frame in the selected part.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str,
        stream_start_ms: int,
        options: ReadOptions = EVERYTHING,
        clock: Callable[[], float] = time.time,
        threads: int = 0,
    ) -> None:
        path = Path(path)
        ensure_readable(path)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._options = options
        self._sampler = Sampler(options.fps)
        self._clock = clock
        self._converter = FrameConverter(rotate=options.rotate)
        self._container = _open(path)
        try:
            stream = _video_stream(path, self._container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            self._decoder = Decoder(self._container, stream, options)
            self._decoded = self._decoder.frames()
            self._first = next(self._decoded, None)
            if self._first is None and options.is_partial and self._decoder.end_s:
                options.refuse_empty(path, self._decoder.end_s)
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
            duration_s=declared_duration_s(self._container, stream),
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=first.frame.format.name,
            start_s=self._options.start_s,
            end_s=self._options.end_s,
        )


def _open(path: Path) -> InputContainer:
    try:
        # An absolute path cannot be parsed as a URL. Tags in an unknown encoding must not cause an error.
        return av.open(str(path.absolute()), "r", container_options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise UnreadableSource(
            f"{path} is neither an image nor a video that can be read ({error.strerror}). Check that it was copied "
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
