"""Fixtures of this folder: single frames of the test clips."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from fer_stream.records import U8

ReadFrame = Callable[[str, int], U8]


@pytest.fixture(scope="session")
def read_frame(clips: Path) -> ReadFrame:
    """Return a function: `read_frame("two_faces", 12)` is frame 12 of that clip, uint8 (H, W, 3) BGR, read-only."""

    def read(clip: str, index: int) -> U8:
        with av.open(str(clips / f"{clip}.mp4")) as container:
            frame = next(islice(container.decode(video=0), index, None))
        image = frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
        image.flags.writeable = False
        return image

    return read
