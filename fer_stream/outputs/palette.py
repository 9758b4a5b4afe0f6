"""One colour per emotion, the same in video, picture and report.

The seven are those of Okabe and Ito (Color Universal Design, 2002), made to be told apart with every common kind of
colour vision. `unknown` is gray and, where there is room for it, hatched: it is not an eighth emotion.
"""

from __future__ import annotations

from fer_stream.records import UNKNOWN

COLOURS = {
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#F0E442",
    "sad": "#0072B2",
    "surprise": "#E69F00",
    "neutral": "#56B4E9",
    UNKNOWN: "#9AA0A6",
}
"""Label → `#RRGGBB`."""


def bgr(label: str) -> tuple[int, int, int]:
    """The colour of `label` as OpenCV orders it: blue, green, red, each 0..255."""
    red, green, blue = bytes.fromhex(COLOURS[label][1:])
    return blue, green, red
