"""Run by the Python of a peer's environment, which has none of our packages: `ask.py NAME`.

Loads the peer, writes a line, and then answers questions: a line of JSON in, {"clip": path, "frames": n}, a line out,
{"boxes": [[[x1, y1, x2, y2], …] of each frame]}. What peers write on stdout themselves goes to stderr.
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
        read, image = capture.read()
        if not read:
            return
        yield image


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    analyse = PEERS[sys.argv[1]]()
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        boxes = [analyse(image) for image in first_frames(question["clip"], question["frames"])]
        print(json.dumps({"boxes": boxes}), file=answers, flush=True)


if __name__ == "__main__":
    main()
