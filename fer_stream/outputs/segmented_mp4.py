"""A video that can be played at any moment of its making."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from fer_stream.outputs.mp4 import Mp4File
from fer_stream.records import U8, stream_start_ms

_ENDING = ".mp4"

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RollingMp4:
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
        self._file: _GrowingMp4 | None = None

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
            self._file = _GrowingMp4(self._folder / (_name(wall_ms) + _ENDING))
        self._file.add(picture, time_s - self._start_s)

    def _complete(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.complete()


def reveal_leftovers(folder: Path) -> None:
    """Give their names to the files of a process that died. Raises `OSError`."""
    for path in folder.glob(f".*Z{_ENDING}"):
        _reveal(path)


class _GrowingMp4:
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
