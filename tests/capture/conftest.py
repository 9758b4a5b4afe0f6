"""Synthetic videos, audio files and corrupted files, created with PyAV."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from hypothesis import strategies as st
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]


def _gray_steps(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """Draw frame `index` in uniform gray: 20, 30, … 210, repeated."""
    return np.full((height, width, 3), 20 + 10 * (index % 20), np.uint8)


def _add_video(
    container: OutputContainer,
    codec: str,
    size: tuple[int, int],
    pix_fmt: str,
    time_base: Fraction,
    aspect: Fraction = Fraction(1),
) -> VideoStream:
    stream = container.add_stream(codec, rate=1 / time_base)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = pix_fmt
    stream.codec_context.gop_size = 12
    stream.codec_context.time_base = time_base
    stream.codec_context.sample_aspect_ratio = aspect
    return stream


def _add_audio(container: OutputContainer, codec: str) -> AudioStream:
    stream = container.add_stream(codec, rate=48000, layout="mono")
    assert isinstance(stream, AudioStream)
    return stream


def _write_silence(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    for start in range(0, int(seconds * 48000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a video and returns its path. Frame i is drawn by `draw(i, width, height)` and has PTS `pts[i]`."""

    def make(
        name: str = "clip.mp4",
        *,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        size: tuple[int, int] = (64, 48),
        frames: int = 20,
        time_base: Fraction = Fraction(1, 25),
        pts: Sequence[int] | None = None,
        draw: Callable[[int, int, int], NDArray[np.uint8]] = _gray_steps,
        display: tuple[int, bool, bool] | None = None,
        aspect: Fraction = Fraction(1),
        silence_s: float = 0.0,
        metadata: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
        with av.open(str(path), "w", options=options) as container:
            container.metadata.update(metadata or {})
            stream = _add_video(container, codec, size, pix_fmt, time_base, aspect)
            audio = _add_audio(container, "aac") if silence_s else None
            if display:
                stream.set_display_rotation(*display)
            for index, at in enumerate(pts or range(frames)):
                frame = av.VideoFrame.from_ndarray(draw(index, *size), format="bgr24")
                frame.pts, frame.time_base = at, time_base
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if audio:
                _write_silence(container, audio, silence_s)
        return path

    return make


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """Writes an audio file, optionally with cover art, and returns its path."""

    def make(name: str, codec: str, *, cover: bool = False) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            audio = _add_audio(container, codec)
            if cover:
                stream = _add_video(container, "mjpeg", (32, 32), "yuvj420p", Fraction(1, 25))
                stream.disposition = av.stream.Disposition.attached_pic
                art = av.VideoFrame.from_ndarray(_gray_steps(5, 32, 32), format="bgr24")
                container.mux(stream.encode(art))
                container.mux(stream.encode(None))
            _write_silence(container, audio, 1.0)
        return path

    return make


@pytest.fixture
def corrupted() -> Callable[[bytes], st.SearchStrategy[bytes]]:
    """Creates strategies for a truncated file, or one with bytes changed, removed or inserted."""

    def make(valid: bytes) -> st.SearchStrategy[bytes]:
        positions = st.integers(0, len(valid))
        edits = st.tuples(
            positions, st.integers(0, 40), st.binary(max_size=8) | st.just(bytes(8)) | st.just(b"\xff" * 8)
        )

        def corrupt(edits: list[tuple[int, int, bytes]], end: int) -> bytes:
            data = valid
            for at, removed, inserted in edits:
                data = data[:at] + inserted + data[at + removed :]
            return data[:end]

        return st.builds(corrupt, st.lists(edits, max_size=4), positions | st.just(2 * len(valid)))

    return make


@pytest.fixture
def unprotected_folder() -> Iterator[Path]:
    """Empty folder that any user may enter; files in it can be protected by their own permissions."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        for path in Path(folder).iterdir():
            path.chmod(stat.S_IRWXU)


_AS_NOBODY = """
import os, pwd, sys
from {module} import {function}
if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
try:
    {function}({arguments})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def error_as_nobody() -> Callable[[str, str, str], str]:
    """Calls a function as an unprivileged user, because root may read every file; returns error class and message."""

    def call(module: str, function: str, arguments: str) -> str:
        # Privileges are dropped after the imports, because the interpreter may be readable by its owner only.
        code = _AS_NOBODY.format(module=module, function=function, arguments=arguments)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call
