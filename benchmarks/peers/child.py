"""Process of a peer, run by the Python of its environment, without packages of fer-stream: `child.py NAME`.

Loads the peer, writes one line, and then reads requests as lines of JSON, {"clip": path, "frames": n}, and writes
responses, {"boxes": [[[x1, y1, x2, y2], …] per frame]}. Other output of the peer on stdout is redirected to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cv2

Box = list[float]
Analyse = Callable[[Any], list[Box]]


def fer() -> Analyse:
    from fer.fer import FER

    detector = FER()

    def analyse(image: Any) -> list[Box]:
        return [_corners(face["box"]) for face in detector.detect_emotions(image)]

    return analyse


PEERS = {"fer": fer}


def _corners(box: Sequence[float]) -> Box:
    x, y, width, height = (float(side) for side in box)
    return [x, y, x + width, y + height]


def first_frames(clip: str, count: int) -> Any:
    capture = cv2.VideoCapture(clip)
    for _ in range(count):
        success, image = capture.read()
        if not success:
            return
        yield image


def main() -> None:
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    analyse = PEERS[sys.argv[1]]()
    print(json.dumps({}), file=responses, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        boxes = [analyse(image) for image in first_frames(request["clip"], request["frames"])]
        print(json.dumps({"boxes": boxes}), file=responses, flush=True)


if __name__ == "__main__":
    main()
