"""Boxes, labels and bars on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_stream.outputs.redaction import redact_region
from fer_stream.records import F32, LABELS, U8, UNKNOWN, Frame, LabelledFace
from fer_stream.store.protocol import Preview

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


Size = tuple[int, int]
"""Width and height in px."""

Colour = tuple[int, int, int]
"""Blue, green, red."""

_INK = (32, 27, 24)
_RAIL = (66, 58, 52)
_PAPER = (250, 250, 250)
_DIM = (200, 195, 190)
_OPACITY = 0.82

# Strong corners shorter than so many widths of the line would be blots.
_LEAST_CORNER = 6

# How high a card with a named bar for every emotion may be, in heights of the picture and of the face.
_PICTURES_HIGH = 0.45
_FACES_HIGH, _FACES_HIGH_TO_KEEP = 1.4, 1.8


class _Rect(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int

    def overlap_px(self, other: _Rect) -> int:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(width, 0) * max(height, 0)


class _Card(NamedTuple):
    """Where a person's card is: which of the places around the box, and whether its bars have names."""

    place: int
    named: bool


class Annotator:
    """Draws the faces of the frames of one stream: a box, and beside it a card with number, label and bars.

    Remembers where each person's card was, so that cards do not jump about from frame to frame.
    """

    def __init__(self) -> None:
        self._cards: dict[int, _Card] = {}

    def draw(self, image: U8, faces: Sequence[LabelledFace]) -> None:
        """Draw `faces` into `image` itself, uint8 (H, W, 3) BGR of any size."""
        picture = image.shape[1], image.shape[0]
        text_px = _text_px(picture)
        boxes = [_rect(face.xyxy) for face in faces]
        for face, box in zip(faces, boxes, strict=True):
            _outline(image, box, bgr(face.label), text_px)
        taken: list[_Rect] = []
        cards: dict[int, _Card] = {}
        for face, box in zip(faces, boxes, strict=True):
            last = self._cards.get(face.person_id, _Card(0, named=False))
            named = _has_room_for_names(box, picture, text_px, last.named)
            size = _card_size(_title(face), text_px, named=named)
            places = _around(box, size, picture, text_px)
            place = _best(places, last.place, boxes, taken)
            _paste(image, _card(face, text_px, named=named), places[place])
            taken.append(places[place])
            cards[face.person_id] = _Card(place, named)
        self._cards = cards


def _text_px(picture: Size) -> int:
    """9 px is the least at which the font can be read; from there on text grows slower than the picture."""
    return max(9, round(6 + 0.018 * min(picture)))


def _rect(xyxy: F32) -> _Rect:
    left, top, right, bottom = (round(value) for value in xyxy.tolist())
    return _Rect(left, top, right, bottom)


def _title(face: LabelledFace) -> str:
    if face.label == UNKNOWN and not face.quality.ok:
        return f"{face.person_id}  unknown: {face.quality.reason.replace('_', ' ')}"
    return f"{face.person_id}  {face.label}"


# Where things go


def _has_room_for_names(box: _Rect, picture: Size, text_px: int, had: bool) -> bool:
    """A card with a line for every emotion should dwarf neither the face nor the picture."""
    height = _card_size("", text_px, named=True)[1]
    # Two thresholds, or a face that moves to and fro would make its card flicker.
    faces = _FACES_HIGH_TO_KEEP if had else _FACES_HIGH
    return height <= min(_PICTURES_HIGH * picture[1], faces * (box.bottom - box.top))


def _around(box: _Rect, size: Size, picture: Size, text_px: int) -> list[_Rect]:
    width, height = size
    gap = max(2, text_px // 4)
    beside = (box.right + gap, box.left - gap - width)
    above, below = box.top - gap - height, box.bottom + gap
    corners = [
        (beside[0], box.top), (beside[1], box.top), (box.left, above), (box.left, below),
        (beside[0], box.bottom - height), (beside[1], box.bottom - height),
        (box.right - width, above), (box.right - width, below),
    ]  # fmt: skip
    return [_inside(x, y, size, picture) for x, y in corners]


def _inside(x: int, y: int, size: Size, picture: Size) -> _Rect:
    left = max(0, min(x, picture[0] - size[0]))
    top = max(0, min(y, picture[1] - size[1]))
    return _Rect(left, top, left + size[0], top + size[1])


def _best(places: Sequence[_Rect], last: int, boxes: Sequence[_Rect], taken: Sequence[_Rect]) -> int:
    """The place that hides the least of faces and, twice as bad, of other cards; the last one if none is better."""

    def cost(place: int) -> tuple[int, bool, int]:
        rect = places[place]
        hidden = sum(map(rect.overlap_px, boxes)) + 2 * sum(map(rect.overlap_px, taken))
        return hidden, place != last, place

    return min(range(len(places)), key=cost)


# What is drawn


def _outline(image: U8, box: _Rect, colour: Colour, text_px: int) -> None:
    """A thin box with strong corners, dark outside so that it stands out from any background."""
    thin = max(1, text_px // 12)
    cv2.rectangle(image, (box.left - thin, box.top - thin), (box.right + thin, box.bottom + thin), _INK, thin)
    cv2.rectangle(image, (box.left, box.top), (box.right, box.bottom), colour, thin)
    corner = round(0.18 * min(box.right - box.left, box.bottom - box.top))
    if corner < _LEAST_CORNER * thin:
        return
    for x, inwards in ((box.left, corner), (box.right, -corner)):
        for y, down in ((box.top, corner), (box.bottom, -corner)):
            cv2.line(image, (x, y), (x + inwards, y), colour, 2 * thin + 1)
            cv2.line(image, (x, y), (x, y + down), colour, 2 * thin + 1)


class _Measures(NamedTuple):
    """The parts of a card in px: `left` is where the bars begin, `step` from one bar to the next."""

    pad: int
    title: int
    left: int
    step: int
    length: int
    thick: int


@lru_cache(maxsize=16)
def _measures(text_px: int, *, named: bool) -> _Measures:
    pad, title = max(2, round(0.3 * text_px)), _text("", text_px, bold=True).shape[0]
    if not named:
        step = max(4, round(0.6 * text_px))
        return _Measures(pad, title, 2 * pad, step, length=round(0.9 * text_px), thick=step - 1)
    names = [_text(label, _name_px(text_px), bold=True) for label in LABELS]
    step = names[0].shape[0]
    left = 3 * pad + max(name.shape[1] for name in names)
    return _Measures(pad, title, left, step, length=round(3.2 * text_px), thick=max(2, round(0.45 * step)))


@lru_cache(maxsize=256)
def _card_size(title: str, text_px: int, *, named: bool) -> Size:
    at = _measures(text_px, named=named)
    wide = _text(title, text_px, bold=True).shape[1] + 4 * at.pad
    if named:
        return max(wide, at.left + at.length + 2 * at.pad), at.title + len(LABELS) * at.step + 3 * at.pad
    return max(wide, at.left + len(LABELS) * at.step + at.pad), at.title + at.length + 2 * at.pad


def _card(face: LabelledFace, text_px: int, *, named: bool) -> U8:
    """The title over the bars: named ones that lie, or upright ones in the order of `LABELS`, told by colour."""
    at = _measures(text_px, named=named)
    card = _empty_card(_title(face), face.label, text_px, named=named).copy()
    for number, (label, prob) in enumerate(zip(LABELS, face.smoothed.tolist(), strict=True)):
        colour = bgr(UNKNOWN if face.label == UNKNOWN else label)
        full = max(1, round(prob * at.length))
        _bar(card, at, number, named=named)[-full:] = colour
    return card


@lru_cache(maxsize=64)
def _empty_card(title: str, label: str, text_px: int, *, named: bool) -> U8:
    width, height = _card_size(title, text_px, named=named)
    at = _measures(text_px, named=named)
    card = np.full((height, width, 3), _INK, np.uint8)
    card[:, : max(2, at.pad * 2 // 3)] = bgr(label)
    _write(card, _text(title, text_px, bold=True), (2 * at.pad, at.pad), _PAPER)
    for number, name in enumerate(LABELS):
        _bar(card, at, number, named=named)[:] = _RAIL
        if named:
            chosen = name == label
            top = 2 * at.pad + at.title + number * at.step
            text = _text(name, _name_px(text_px), bold=chosen)
            _write(card, text, (2 * at.pad, top), _PAPER if chosen else _DIM)
    return card


def _bar(card: U8, at: _Measures, number: int, *, named: bool) -> U8:
    """The part of `card` in which bar `number` lies, turned so that it fills from the last row upwards."""
    if not named:
        top, left = at.pad + at.title, at.left + number * at.step
        return card[top : top + at.length, left : left + at.thick]
    top = 2 * at.pad + at.title + number * at.step + (at.step - at.thick) // 2
    lying = card[top : top + at.thick, at.left : at.left + at.length]
    return lying.transpose(1, 0, 2)[::-1]


def _name_px(text_px: int) -> int:
    return max(9, round(0.8 * text_px))


def _paste(image: U8, card: U8, rect: _Rect) -> None:
    under = image[rect.top : rect.bottom, rect.left : rect.right]
    height, width = under.shape[:2]
    cv2.addWeighted(under, 1 - _OPACITY, card[:height, :width], _OPACITY, 0, dst=under)


# Text


def _write(card: U8, text: U8, at: tuple[int, int], colour: Colour) -> None:
    left, top = at
    under = card[top : top + text.shape[0], left : left + text.shape[1]]
    share = text[: under.shape[0], : under.shape[1], None].astype(np.float32) / 255
    under[:] = under + share * (np.array(colour, np.float32) - under)


@lru_cache(maxsize=512)
def _text(text: str, px: int, *, bold: bool) -> U8:
    """`text` as coverage 0..255, uint8 (h, w); h depends on the size alone."""
    font = _font(px, bold)
    ascent, descent = font.getmetrics()
    canvas = Image.new("L", (round(font.getlength(text)) + 1, ascent + descent))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=font)
    return np.asarray(canvas)


@lru_cache(maxsize=16)
def _font(px: int, bold: bool) -> ImageFont.FreeTypeFont:
    # DejaVu comes with matplotlib; OpenCV draws its own fonts as strokes, which small sizes do not survive.
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), px)


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
        redact_region(small, box * factor, "blur")
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return Preview(frame.stream_id, frame.index, width, height, jpeg.tobytes())
