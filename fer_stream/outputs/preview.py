"""A small picture of a camera, for people who look (JPEG)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fer_stream.outputs.redaction import cover
from fer_stream.records import F32, Frame
from fer_stream.store.protocol import Preview

LONG_SIDE_PX = 640
_QUALITY = 70


def preview_of(frame: Frame, covers: Sequence[F32] = ()) -> Preview:
    """`frame` with its long side at most 640 px, and with the boxes `covers` (xyxy px of the frame) blurred.

    About 25 KB for a room, at a quality at which the faces are still clear.
    """
    height, width = frame.pixels.shape
    factor = min(1.0, LONG_SIDE_PX / max(width, height))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    # A copy in any case: others still read the frame.
    small = np.array(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    for box in covers:
        cover(small, box * factor, "blur")
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return Preview(frame.stream_id, frame.index, width, height, jpeg.tobytes())
