"""Pictures and sound → an MP4 file that every browser plays."""

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

from fer_stream.outputs.audio import AudioRemuxer
from fer_stream.records import U8, stream_start_ms

# The clock of MPEG transport streams: it holds 24, 25, 30 and 30000/1001 fps exactly.
_TIME_BASE = Fraction(1, 90_000)

# x264's own default quality. Measured on one clip of 640×360 px, `faster` takes 1.5 times as long as `veryfast` and
# saves no room, and `superfast` takes 0.7 times as long for a file 1.8 times as large.
_ENCODER = {"crf": "23", "preset": "veryfast"}

_INDEX_IN_FRONT = {"movflags": "+faststart"}
# So many µs of pictures in a fragment: a process that dies takes the last ones with it. Without delay_moov the first
# picture would come late, by the time that x264 reorders over.
_FRAGMENTS = {"movflags": "+empty_moov+default_base_moof+delay_moov", "frag_duration": "2000000"}

# ITU-T H.273: 1 is BT.709, 6 is BT.601, whose matrix cv2.COLOR_BGR2YUV_I420 uses. Range 1 is the limited one.
_BT709, _BT601, _LIMITED = 1, 6, 1


class Mp4File:
    """H.264 in yuv420p at the pictures' own times, the index in front, with the sound of `audio_from` if any.

    The size is that of the first picture, made even; later ones of another size are scaled to it. Leaving the
    context without `close` gives the file up. With `in_fragments` what was written so far can be played at any
    time, also when the process dies: no index is needed, as the file is a chain of short ones.
    `threads` is the number of cores that encoding may use; 0 is one per core.
    """

    def __init__(
        self, path: Path, *, audio_from: Path | None = None, in_fragments: bool = False, threads: int = 0
    ) -> None:
        # PyAV never closes a file for whose header there was no room, so a full disk has to show before.
        path.write_bytes(bytes(4096))
        self._container: OutputContainer = av.open(
            str(path), "w", format="mp4", options=_FRAGMENTS if in_fragments else _INDEX_IN_FRONT
        )
        self._audio_from = audio_from
        self._threads = threads
        self._video: VideoStream | None = None
        self._sound: AudioRemuxer | None = None
        self._last_pts = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sound is not None:
            self._sound.close()
        # On a full disk closing fails as writing did, and that fault is on its way already.
        with suppress(OSError):
            self._container.close()

    def add(self, picture: U8, time_s: float) -> None:
        """Append `picture`, uint8 (H, W, 3) BGR, shown from `time_s`, which never goes backwards."""
        if self._video is None:
            self._video = self._open_video(picture)
            self._sound = AudioRemuxer.open(self._audio_from, self._container) if self._audio_from else None
        frame = av.VideoFrame.from_ndarray(_yuv(picture, self._video.width, self._video.height), format="yuv420p")
        # Two pictures of a damaged file may share a time; in an MP4 they cannot.
        pts = max(round(time_s / _TIME_BASE), self._last_pts + 1)
        # It counts for the last picture alone, which so stays for as long as the one before it.
        frame.duration = pts - max(self._last_pts, 0)
        frame.pts, frame.time_base = pts, _TIME_BASE
        self._last_pts = pts
        self._encode(self._video, frame)

    def close(self, *, whole_sound: bool) -> None:
        """Complete the file. Without `whole_sound` the sound ends with the pictures."""
        if self._video is not None:
            self._encode(self._video, None)
        if self._sound is not None:
            self._sound.copy_until(None if whole_sound else float(self._last_pts * _TIME_BASE))
        self._container.close()

    def _open_video(self, picture: U8) -> VideoStream:
        stream = self._container.add_stream("libx264", options=_ENCODER)
        height, width = picture.shape[:2]
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
            if self._sound is not None:
                self._sound.copy_until(time_s)


def _yuv(picture: U8, width: int, height: int) -> U8:
    """`picture` as planar 4:2:0 of `width` × `height` px, both even."""
    rows, columns = picture.shape[:2]
    if (columns + columns % 2, rows + rows % 2) != (width, height):
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    elif (columns, rows) != (width, height):
        border = cv2.copyMakeBorder(picture, 0, height - rows, 0, width - columns, cv2.BORDER_REPLICATE)
        picture = np.asarray(border, np.uint8)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)


_ENDING = ".mp4"

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SegmentedMp4Writer:
    """Writes one run of pictures into `folder`, with a new file at each multiple of `segment_s` of Unix time.

    `begins` is called before each file. Leaving the context completes the last file. Raises `OSError` where a
    file cannot be written; what it holds by then is kept.
    """

    def __init__(self, folder: Path, segment_s: float, begins: Callable[[], None]) -> None:
        self._folder = folder
        self._segment_s = segment_s
        self._begins = begins
        self._segment = 0
        self._start_s = 0.0
        self._file: _Segment | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._complete()
        elif self._file is not None:
            self._file.give_up()

    def add(self, picture: U8, stream_id: str, time_s: float) -> None:
        """Append `picture`, uint8 (H, W, 3) BGR, of media time `time_s`, which never goes backwards."""
        wall_ms = stream_start_ms(stream_id) + 1000 * time_s
        segment = math.floor(wall_ms / (1000 * self._segment_s))
        if self._file is None or segment != self._segment:
            self._complete()
            self._begins()
            self._segment, self._start_s = segment, time_s
            self._file = _Segment(self._folder / (_name(wall_ms) + _ENDING))
        self._file.add(picture, time_s - self._start_s)

    def _complete(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.complete()


def recover_partial(folder: Path) -> None:
    """Give their names to the files of a process that died. Raises `OSError`."""
    for path in folder.glob(f".*Z{_ENDING}"):
        _reveal(path)


class _Segment:
    """`path`, which has a dot before its name until it ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        hidden = path.with_name(f".{path.name}")
        with ExitStack() as undo:
            undo.callback(_reveal, hidden)
            # One core: many cameras are recorded side by side.
            self._video = undo.enter_context(Mp4File(hidden, in_fragments=True, threads=1))
            self._undo = undo.pop_all()

    def add(self, picture: U8, time_s: float) -> None:
        self._video.add(picture, time_s)

    def complete(self) -> None:
        with self._undo:
            self._video.close(whole_sound=False)

    def give_up(self) -> None:
        self._undo.close()


def _reveal(hidden: Path) -> None:
    if not hidden.exists():
        return  # too old by now, or deleted on purpose
    whole = _whole_fragments(hidden)
    if whole:
        os.truncate(hidden, whole)
        hidden.replace(hidden.with_name(hidden.name[1:]))
    else:
        hidden.unlink()


def _whole_fragments(path: Path) -> int:
    """The length in bytes of `path` up to its last whole fragment, and with the index if that follows; else 0.

    An MP4 is a chain of boxes (ISO/IEC 14496-12): 32 bits of length, the kind, and 64 bits of length where the
    first one is 1. A fragment is a `moof` and an `mdat`.
    """
    size, whole, start = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            length, kind = int.from_bytes(header[:4]), header[4:8]
            length = int.from_bytes(header[8:]) if length == 1 else length
            start += length
            if length < 8 or start > size:
                break
            whole = start if kind in (b"mdat", b"mfra") else whole
            file.seek(start)
    return whole


def _name(wall_ms: float) -> str:
    start = _UNIX_EPOCH + timedelta(milliseconds=math.floor(wall_ms))
    return f"{start:%Y-%m-%dT%H%M%S}.{start.microsecond // 1000:03d}Z"
