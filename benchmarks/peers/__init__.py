"""Other libraries that read emotions off faces, each in an environment of its own, measured on the same clip.

    python -m benchmarks.peers

makes the environments, in the user's cache folder (or $FER_STREAM_CACHE), and says what does not install or run. A
peer is loaded once, and then asked clip by clip, so that loading it is in no time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.goals import NotMeasurable
from fer_stream import model_files
from fer_stream.records import F32

_SCRIPT = Path(__file__).with_name("ask.py")
_DONE = "installed"
_FAILED = "failed"
_INSTALL_S = 1800


@dataclass(frozen=True, slots=True)
class Peer:
    """A library as it comes from PyPI. The first of the requirements is its own."""

    name: str
    requirements: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and version."""
        return self.requirements[0].replace("==", " ")

    @property
    def folder(self) -> Path:
        """Where its environment is."""
        return model_files.cache_dir().with_name("peers") / self.requirements[0]


PEERS = {peer.name: peer for peer in (Peer("fer", ("fer==25.10.3",)),)}


def install(peer: Peer) -> str:
    """Make its environment, unless that is done; why that failed, or nothing."""
    if (peer.folder / _DONE).exists():
        return ""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(peer.folder)], check=True)
    pip = [str(_python(peer)), "-m", "pip", "install", "--quiet", *peer.requirements]
    try:
        done = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    except subprocess.TimeoutExpired:
        reason = f"not installed within {_INSTALL_S // 60} minutes"
    else:
        reason = _last_line(done.stderr) if done.returncode else ""
    (peer.folder / (_FAILED if reason else _DONE)).write_text(reason)
    return reason


class Running:
    """A peer that is loaded, in a process of its own. Raises `Unmeasured` where it is not installed or fails."""

    def __init__(self, peer: Peer) -> None:
        if not (peer.folder / _DONE).exists():
            failed = peer.folder / _FAILED
            raise NotMeasurable(failed.read_text() if failed.exists() else "not installed: python -m benchmarks.peers")
        self._peer = peer
        self._log = (peer.folder / "log").open("w+")
        self._process = subprocess.Popen(
            [str(_python(peer)), str(_SCRIPT), peer.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        self._answer()

    def look(self, clip: Path, frames: int) -> list[F32]:
        """The boxes of the faces that it finds and classifies in the first `frames` of a clip, float32 (n, 4) px."""
        answer = self._ask({"clip": str(clip), "frames": frames})
        return [np.array(boxes, np.float32).reshape(-1, 4) for boxes in answer["boxes"]]

    def close(self) -> None:
        """End its process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise NotMeasurable(f"{self._peer.title} does not run: {_last_line(self._log.read())}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _python(peer: Peer) -> Path:
    return peer.folder / "bin" / "python"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no reason given"
