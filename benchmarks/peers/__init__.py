"""Other libraries for facial emotion recognition ("peers"), each in its own environment, measured on the same clip.

    python -m benchmarks.peers

creates the environments in the user's cache folder (or $FER_STREAM_CACHE) and reports libraries that cannot be
installed or run. A peer is loaded once and then processes clips on request, so that no time includes its start.
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

_SCRIPT = Path(__file__).with_name("child.py")
_INSTALLED_MARKER = "installed"
_FAILED_MARKER = "failed"
_INSTALL_TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class Peer:
    """A library on PyPI. The first requirement is the library itself."""

    name: str
    requirements: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and version of the library."""
        return self.requirements[0].replace("==", " ")

    @property
    def folder(self) -> Path:
        """Folder of its virtual environment."""
        return model_files.cache_dir().with_name("peers") / self.requirements[0]


PEERS = {peer.name: peer for peer in (Peer("fer", ("fer==25.10.3",)),)}


def install(peer: Peer) -> str:
    """Create its environment if it does not exist. Return the reason of a failure, or an empty string."""
    if (peer.folder / _INSTALLED_MARKER).exists():
        return ""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(peer.folder)], check=True)
    pip = [str(_python(peer)), "-m", "pip", "install", "--quiet", *peer.requirements]
    try:
        completed = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        reason = f"not installed within {_INSTALL_TIMEOUT_S // 60} minutes"
    else:
        reason = _last_line(completed.stderr) if completed.returncode else ""
    (peer.folder / (_FAILED_MARKER if reason else _INSTALLED_MARKER)).write_text(reason)
    return reason


class PeerProcess:
    """A loaded peer in its own process. Raises `NotMeasurable` if it is not installed or fails."""

    def __init__(self, peer: Peer) -> None:
        if not (peer.folder / _INSTALLED_MARKER).exists():
            marker = peer.folder / _FAILED_MARKER
            raise NotMeasurable(
                marker.read_text() if marker.exists() else "not installed: run python -m benchmarks.peers"
            )
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
        self._read_response()

    def detect(self, clip: Path, frames: int) -> list[F32]:
        """Return the boxes of all classified faces in each of the first `frames` of a clip, float32 (n, 4) px."""
        response = self._request({"clip": str(clip), "frames": frames})
        return [np.array(boxes, np.float32).reshape(-1, 4) for boxes in response["boxes"]]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._read_response()

    def _read_response(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise NotMeasurable(f"{self._peer.title} failed: {_last_line(self._log.read())}")
        response: dict[str, Any] = json.loads(line)
        return response


def _python(peer: Peer) -> Path:
    return peer.folder / "bin" / "python"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no error message"
