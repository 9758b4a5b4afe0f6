"""Video files: every frame, in order, at its PTS time, decoded only as fast as it is taken (PyAV)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from fer_stream.capture.decode import Decoder
from fer_stream.capture.discovery import check_file
from fer_stream.capture.pixel_formats import Converter, orientation_of
from fer_stream.capture.source import Sampler
from fer_stream.errors import UnreadableSource
from fer_stream.records import DecodeErrors, Frame, SourceInfo, stream_id_of

# These have FFmpeg open further files or addresses (a list of protocols alone does not stop a playlist), or, as tty
# does, draw any text as a film.
_REFUSED_FORMATS = {
    "concat", "dash", "hls", "image2", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "tty", "vobsub",
    "webm_dash_manifest",
}  # fmt: skip
_FORMATS = {name for names in av.formats_available for name in names.split(",")} - _REFUSED_FORMATS
_OPEN_OPTIONS = {"format_whitelist": ",".join(sorted(_FORMATS)), "protocol_whitelist": "file"}


class VideoFileSource:
    """The frames of one local video file of any container that FFmpeg reads, playlists excepted.

    `time_s` is PTS less the start of the container, so that it agrees with the sound; it never goes backwards, and a
    frame without a usable PTS follows the one before after that one's duration. `index` is the number of the frame
    in the file, also where `sampler` leaves frames out: these are decoded, since others build on them, but not
    converted. Pictures are turned and mirrored as the display matrix says. Pixels are those of the file: a sample
    aspect ratio other than 1:1 is left alone. Alpha is dropped. The size may change in mid-file.

    What cannot be decoded is counted and left out; the rest is used. Frames are decoded one by one as they are
    taken, with `threads` threads (0: one per core). An error among the last frames of a file may cost the few frames
    that other threads hold then.

    Raises `SourceNotFound` where there is no such file, and `UnreadableSource` where it may not be read, is no video,
    or holds no frame that can be decoded.
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
        check_file(path)
        self.stream_id = stream_id_of(name, stream_start_ms)
        self._sampler = sampler or Sampler(None)
        self._clock = clock
        self._converter = Converter()
        self._container = _open(path)
        try:
            stream = _video_stream(path, self._container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            self._decoder = Decoder(self._container, stream)
            self._pictures = self._decoder.pictures()
            self._first = next(self._pictures, None)
            if self._first is None:
                raise UnreadableSource(
                    f"{path} holds no frame that can be decoded ({self.decode_errors.reason or 'its video is empty'}). "
                    "Check that it was copied whole and plays elsewhere."
                )
            self._info = _info(name, self._container, stream, self._first.frame)
        except BaseException:
            self._container.close()
            raise

    @property
    def info(self) -> SourceInfo:
        """What the container claims; `width` and `height` are those of the first picture, upright."""
        return self._info

    @property
    def decode_errors(self) -> DecodeErrors:
        """What could not be decoded so far. Whether the file was cut off is known at its end."""
        return self._decoder.damage

    def frames(self) -> Iterator[Frame]:
        """The frames in order; to be called once."""
        first, self._first = self._first, None
        for picture in chain([first] if first else [], self._pictures):
            if self._sampler.keep(picture.time_s):
                pixels = self._converter.pixels(picture.frame)
                yield Frame(self.stream_id, picture.index, picture.time_s, self._clock(), pixels)

    def close(self) -> None:
        """Release the file and the decoder. May be called twice, and while `frames()` is suspended."""
        self._first = None
        self._pictures.close()  # before the container: a suspended demuxer would read from what is gone
        self._container.close()


def _open(path: Path) -> InputContainer:
    try:
        # Absolute, so that no name looks like an address; tags in an old encoding must not stop anything.
        return av.open(str(path.absolute()), "r", container_options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise UnreadableSource(
            f"{path} is no video file that FFmpeg can read ({error.strerror}). Check that it was copied whole; "
            "instead of a playlist, name its videos."
        ) from error


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The default video stream, else the first; a cover picture is no video."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UnreadableSource(f"{path} holds no video, only sound or data. Name a file with pictures.")
    stream = max(streams, key=lambda s: bool(s.disposition & Disposition.default))
    if not stream.codec_context:
        raise UnreadableSource(f"{path} is coded in a way that this FFmpeg cannot decode. Convert it to H.264 first.")
    return stream


def _info(name: str, container: InputContainer, stream: VideoStream, first: VideoFrame) -> SourceInfo:
    sideways = orientation_of(first).sideways
    if stream.duration and stream.time_base:
        duration_s = float(stream.duration * stream.time_base)
    else:
        duration_s = (container.duration or 0) / av.time_base
    return SourceInfo(
        name=name,
        kind="video",
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        fps=float(stream.average_rate) if stream.average_rate else None,
        frames=stream.frames or None,
        duration_s=duration_s or None,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first.format.name,
    )
