"""MP4 files that every browser plays, from frames and audio."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.stream import VideoStream

from fer_stream.outputs.audio import AudioClip, AudioRemuxer
from fer_stream.records import U8, stream_start_ms

# Time base of MPEG transport streams; represents 24, 25, 30 and 30000/1001 fps exactly.
_TIME_BASE = Fraction(1, 90_000)

# Default quality of x264. Measured on one clip of 640×360 px, `faster` takes 1.5 times as long as `veryfast` without
# a smaller file, and `superfast` takes 0.7 times as long for a file 1.8 times as large.
_ENCODER = {"crf": "23", "preset": "veryfast"}

_INDEX_FIRST = {"movflags": "+faststart"}
# Length of a fragment in µs: if the process dies, the last fragment is lost. Without delay_moov the first frame would
# be delayed by the reordering of x264.
_FRAGMENTS = {"movflags": "+empty_moov+default_base_moof+delay_moov", "frag_duration": "2000000"}

# ITU-T H.273: 1 is BT.709, 6 is BT.601, whose matrix cv2.COLOR_BGR2YUV_I420 uses. Range 1 is the limited one.
_BT709, _BT601, _LIMITED = 1, 6, 1


class Mp4File:
    """H.264 in yuv420p with frames at their own times, the index first, and the audio of `audio_from` if it has any.

    The size is that of the first frame, padded to even numbers; later frames of another size are scaled to it.
    Leaving the context without `close` abandons the file. With `fragmented`, the file is a chain of short fragments
    without an index, so that it is playable at any time, also if the process dies. `threads` is the number of cores
    for encoding; 0 is one per core.
    """

    def __init__(
        self, path: Path, *, audio_from: AudioClip | None = None, fragmented: bool = False, threads: int = 0
    ) -> None:
        # PyAV does not close a file if writing its header fails, so a full disk must be detected before.
        path.write_bytes(bytes(4096))
        self._container: OutputContainer = av.open(
            str(path), "w", format="mp4", options=_FRAGMENTS if fragmented else _INDEX_FIRST
        )
        self._audio_from = audio_from
        self._threads = threads
        self._video: VideoStream | None = None
        self._audio: AudioRemuxer | None = None
        self._last_pts = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._audio is not None:
            self._audio.close()
        # On a full disk, closing fails like writing, whose error is already being raised.
        with suppress(OSError):
            self._container.close()

    def add(self, image: U8, time_s: float) -> None:
        """Append `image`, uint8 (H, W, 3) BGR, shown from `time_s`, which must not decrease."""
        if self._video is None:
            self._video = self._open_video(image)
            self._audio = AudioRemuxer.open(self._audio_from, self._container) if self._audio_from else None
        frame = av.VideoFrame.from_ndarray(_yuv(image, self._video.width, self._video.height), format="yuv420p")
        # Two frames of a damaged file can have the same time, which MP4 does not allow.
        pts = max(round(time_s / _TIME_BASE), self._last_pts + 1)
        # Only used for the last frame, which is then shown for as long as the one before it.
        frame.duration = pts - max(self._last_pts, 0)
        frame.pts, frame.time_base = pts, _TIME_BASE
        self._last_pts = pts
        self._encode(self._video, frame)

    def close(self, *, full_audio: bool) -> None:
        """Complete the file. Without `full_audio`, the audio ends with the last frame."""
        if self._video is not None:
            self._encode(self._video, None)
        if self._audio is not None:
            video_s = float(self._last_pts * _TIME_BASE)
            self._audio.copy_until(self._audio_from.length_s if full_audio and self._audio_from else video_s)
        self._container.close()

    def _open_video(self, image: U8) -> VideoStream:
        stream = self._container.add_stream("libx264", options=_ENCODER)
        height, width = image.shape[:2]
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        codec = stream.codec_context
        codec.time_base, codec.thread_count = _TIME_BASE, self._threads
        codec.flags |= Flags.frame_duration
        codec.color_primaries, codec.color_trc = _BT709, _BT709
        codec.colorspace, codec.color_range = _BT601, _LIMITED
        return stream

    def _encode(self, stream: VideoStream, frame: av.VideoFrame | None) -> None:
        for packet in stream.encode(frame):
            time_s = float((packet.pts or 0) * packet.time_base)
            self._container.mux(packet)
            if self._audio is not None:
                self._audio.copy_until(time_s)


def _yuv(image: U8, width: int, height: int) -> U8:
    """Return `image` as planar 4:2:0 of `width` × `height` px, both even."""
    rows, columns = image.shape[:2]
    if (columns + columns % 2, rows + rows % 2) != (width, height):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    elif (columns, rows) != (width, height):
        border = cv2.copyMakeBorder(image, 0, height - rows, 0, width - columns, cv2.BORDER_REPLICATE)
        image = np.asarray(border, np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8)


# Recordings in segments

_SUFFIX = ".mp4"

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SegmentedMp4Writer:
    """Writes consecutive frames to `directory`, with a new file at each multiple of `segment_s` of Unix time.

    `on_segment` is called before each file. Leaving the context completes the last file. Raises `OSError` if a file
    cannot be written; its contents so far are kept.
    """

    def __init__(self, directory: Path, segment_s: float, on_segment: Callable[[], None]) -> None:
        self._directory = directory
        self._segment_s = segment_s
        self._on_segment = on_segment
        self._number = 0
        self._start_s = 0.0
        self._segment: _Segment | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._complete()
        elif self._segment is not None:
            self._segment.abandon()

    def add(self, image: U8, stream_id: str, time_s: float) -> None:
        """Append `image`, uint8 (H, W, 3) BGR, of media time `time_s`, which must not decrease."""
        wall_ms = stream_start_ms(stream_id) + 1000 * time_s
        number = math.floor(wall_ms / (1000 * self._segment_s))
        if self._segment is None or number != self._number:
            self._complete()
            self._on_segment()
            self._number, self._start_s = number, time_s
            self._segment = _Segment(self._directory / (_name(wall_ms) + _SUFFIX))
        self._segment.add(image, time_s - self._start_s)

    def _complete(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.complete()


def recover_partial(directory: Path) -> None:
    """Truncate and rename the hidden files of a process that died. Raises `OSError`."""
    for path in directory.glob(f".*Z{_SUFFIX}"):
        _publish(path)


class _Segment:
    """One file, whose name starts with a dot until it is complete."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        hidden = path.with_name(f".{path.name}")
        with ExitStack() as stack:
            stack.callback(_publish, hidden)
            # One core, because many cameras are recorded at the same time.
            self._video = stack.enter_context(Mp4File(hidden, fragmented=True, threads=1))
            self._stack = stack.pop_all()

    def add(self, image: U8, time_s: float) -> None:
        self._video.add(image, time_s)

    def complete(self) -> None:
        with self._stack:
            self._video.close(full_audio=False)

    def abandon(self) -> None:
        self._stack.close()


def _publish(hidden: Path) -> None:
    """Rename a hidden file after removing an incomplete fragment; delete it if it contains no complete one."""
    if not hidden.exists():
        return  # expired, or deleted on purpose
    length = _complete_length(hidden)
    if length:
        os.truncate(hidden, length)
        hidden.replace(hidden.with_name(hidden.name[1:]))
    else:
        hidden.unlink()


def _complete_length(path: Path) -> int:
    """Return the length in bytes of `path` up to its last complete fragment, including an index that follows, else 0.

    An MP4 is a chain of boxes (ISO/IEC 14496-12): 32 bits of length, the type, and 64 bits of length if the first one
    is 1. A fragment is a `moof` and an `mdat`.
    """
    size, complete, start = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            length, kind = int.from_bytes(header[:4]), header[4:8]
            length = int.from_bytes(header[8:]) if length == 1 else length
            start += length
            if length < 8 or start > size:
                break
            complete = start if kind in (b"mdat", b"mfra") else complete
            file.seek(start)
    return complete


def _name(wall_ms: float) -> str:
    start = _UNIX_EPOCH + timedelta(milliseconds=math.floor(wall_ms))
    return f"{start:%Y-%m-%dT%H%M%S}.{start.microsecond // 1000:03d}Z"
