"""Boxes, labels and bars drawn on a frame, and previews."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_stream.formatting import format_label
from fer_stream.outputs.redaction import Redaction, redact_region
from fer_stream.records import F32, LABELS, U8, UNKNOWN, Frame, LabelledFace, LabelledFrame
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
"""Label → `#RRGGBB`. Colours of Okabe and Ito, distinguishable with all types of colour vision."""


def bgr(label: str) -> tuple[int, int, int]:
    """Return the colour of `label` in the order of OpenCV: blue, green, red, each 0..255."""
    red, green, blue = bytes.fromhex(COLOURS[label][1:])
    return blue, green, red


Size = tuple[int, int]
"""Width and height in px."""

Colour = tuple[int, int, int]
"""Blue, green, red."""

_BACKGROUND = (32, 27, 24)
_BAR_TRACK = (66, 58, 52)
_TEXT = (250, 250, 250)
_MUTED_TEXT = (200, 195, 190)
_OPACITY = 0.82

# Minimum length of bold corners, in line widths. Shorter ones would be blots.
_MIN_CORNER = 6

# Maximum height of a card with named bars, relative to the frame and to the face.
_MAX_CARD_TO_FRAME = 0.45
_MAX_CARD_TO_FACE, _MAX_CARD_TO_FACE_IF_NAMED = 1.4, 1.8


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
    """Layout of a person's card: index of its position around the box, and whether its bars are named."""

    position: int
    named: bool


class Annotator:
    """Draws the faces of one stream: a box, and next to it a card with number, label and bars.

    Keeps the layout of each card from frame to frame, if possible, so that cards do not jump.
    """

    def __init__(self) -> None:
        self._cards: dict[int, _Card] = {}

    def draw(self, image: U8, faces: Sequence[LabelledFace]) -> None:
        """Draw `faces` into `image`, uint8 (H, W, 3) BGR of any size, in place."""
        frame_size = image.shape[1], image.shape[0]
        text_px = _text_px(frame_size)
        boxes = [_rect(face.xyxy) for face in faces]
        for face, box in zip(faces, boxes, strict=True):
            _outline(image, box, bgr(face.label), text_px)
        placed: list[_Rect] = []
        cards: dict[int, _Card] = {}
        for face, box in zip(faces, boxes, strict=True):
            last = self._cards.get(face.person_id, _Card(0, named=False))
            named = _fits_names(box, frame_size, text_px, last.named)
            size = _card_size(_title(face), text_px, named=named)
            candidates = _candidates(box, size, frame_size, text_px)
            position = _best_position(candidates, last.position, boxes, placed)
            _paste(image, _card(face, text_px, named=named), candidates[position])
            placed.append(candidates[position])
            cards[face.person_id] = _Card(position, named)
        self._cards = cards


def _text_px(frame_size: Size) -> int:
    """Return the font size. 9 px is the smallest readable one; above, text grows more slowly than the frame."""
    return max(9, round(6 + 0.018 * min(frame_size)))


def _rect(xyxy: F32) -> _Rect:
    left, top, right, bottom = (round(value) for value in xyxy.tolist())
    return _Rect(left, top, right, bottom)


def _title(face: LabelledFace) -> str:
    return f"{face.person_id}  {format_label(face.label, face.unknown_reason)}"


# Positions of cards


def _fits_names(box: _Rect, frame_size: Size, text_px: int, was_named: bool) -> bool:
    """Return whether a card with named bars is small enough relative to the face and the frame."""
    height = _card_size("", text_px, named=True)[1]
    # Two thresholds, because the card of a face at the threshold would flicker.
    max_to_face = _MAX_CARD_TO_FACE_IF_NAMED if was_named else _MAX_CARD_TO_FACE
    return height <= min(_MAX_CARD_TO_FRAME * frame_size[1], max_to_face * (box.bottom - box.top))


def _candidates(box: _Rect, size: Size, frame_size: Size, text_px: int) -> list[_Rect]:
    width, height = size
    gap = max(2, text_px // 4)
    right, left = box.right + gap, box.left - gap - width
    above, below = box.top - gap - height, box.bottom + gap
    corners = [
        (right, box.top), (left, box.top), (box.left, above), (box.left, below),
        (right, box.bottom - height), (left, box.bottom - height),
        (box.right - width, above), (box.right - width, below),
    ]  # fmt: skip
    return [_inside(x, y, size, frame_size) for x, y in corners]


def _inside(x: int, y: int, size: Size, frame_size: Size) -> _Rect:
    left = max(0, min(x, frame_size[0] - size[0]))
    top = max(0, min(y, frame_size[1] - size[1]))
    return _Rect(left, top, left + size[0], top + size[1])


def _best_position(candidates: Sequence[_Rect], last: int, boxes: Sequence[_Rect], placed: Sequence[_Rect]) -> int:
    """Return the candidate that hides the least of faces and, with twice the weight, of other cards; `last` in
    ties."""

    def cost(position: int) -> tuple[int, bool, int]:
        rect = candidates[position]
        hidden = sum(map(rect.overlap_px, boxes)) + 2 * sum(map(rect.overlap_px, placed))
        return hidden, position != last, position

    return min(range(len(candidates)), key=cost)


# Boxes and cards


def _outline(image: U8, box: _Rect, colour: Colour, text_px: int) -> None:
    """Draw a thin box with bold corners and a dark outline, visible on any background."""
    thin = max(1, text_px // 12)
    cv2.rectangle(image, (box.left - thin, box.top - thin), (box.right + thin, box.bottom + thin), _BACKGROUND, thin)
    cv2.rectangle(image, (box.left, box.top), (box.right, box.bottom), colour, thin)
    corner = round(0.18 * min(box.right - box.left, box.bottom - box.top))
    if corner < _MIN_CORNER * thin:
        return
    for x, inwards in ((box.left, corner), (box.right, -corner)):
        for y, down in ((box.top, corner), (box.bottom, -corner)):
            cv2.line(image, (x, y), (x + inwards, y), colour, 2 * thin + 1)
            cv2.line(image, (x, y), (x, y + down), colour, 2 * thin + 1)


class _CardLayout(NamedTuple):
    """Dimensions of a card in px: `left` is the start of the bars, `step` the distance from one bar to the next."""

    pad: int
    title: int
    left: int
    step: int
    length: int
    thickness: int


@lru_cache(maxsize=16)
def _card_layout(text_px: int, *, named: bool) -> _CardLayout:
    pad, title = max(2, round(0.3 * text_px)), _text("", text_px, bold=True).shape[0]
    if not named:
        step = max(4, round(0.6 * text_px))
        return _CardLayout(pad, title, 2 * pad, step, length=round(0.9 * text_px), thickness=step - 1)
    names = [_text(label, _name_px(text_px), bold=True) for label in LABELS]
    step = names[0].shape[0]
    left = 3 * pad + max(name.shape[1] for name in names)
    return _CardLayout(pad, title, left, step, length=round(3.2 * text_px), thickness=max(2, round(0.45 * step)))


@lru_cache(maxsize=256)
def _card_size(title: str, text_px: int, *, named: bool) -> Size:
    layout = _card_layout(text_px, named=named)
    width = _text(title, text_px, bold=True).shape[1] + 4 * layout.pad
    if named:
        height = layout.title + len(LABELS) * layout.step + 3 * layout.pad
        return max(width, layout.left + layout.length + 2 * layout.pad), height
    height = layout.title + layout.length + 2 * layout.pad
    return max(width, layout.left + len(LABELS) * layout.step + layout.pad), height


def _card(face: LabelledFace, text_px: int, *, named: bool) -> U8:
    """Draw the title above horizontal named bars, or above vertical unnamed ones in the order of `LABELS`."""
    layout = _card_layout(text_px, named=named)
    card = _empty_card(_title(face), face.label, text_px, named=named).copy()
    for number, (label, prob) in enumerate(zip(LABELS, face.smoothed.tolist(), strict=True)):
        colour = bgr(UNKNOWN if face.label == UNKNOWN else label)
        filled = max(1, round(prob * layout.length))
        _bar(card, layout, number, named=named)[-filled:] = colour
    return card


@lru_cache(maxsize=64)
def _empty_card(title: str, label: str, text_px: int, *, named: bool) -> U8:
    width, height = _card_size(title, text_px, named=named)
    layout = _card_layout(text_px, named=named)
    card = np.full((height, width, 3), _BACKGROUND, np.uint8)
    card[:, : max(2, layout.pad * 2 // 3)] = bgr(label)
    _write(card, _text(title, text_px, bold=True), (2 * layout.pad, layout.pad), _TEXT)
    for number, name in enumerate(LABELS):
        _bar(card, layout, number, named=named)[:] = _BAR_TRACK
        if named:
            chosen = name == label
            top = 2 * layout.pad + layout.title + number * layout.step
            text = _text(name, _name_px(text_px), bold=chosen)
            _write(card, text, (2 * layout.pad, top), _TEXT if chosen else _MUTED_TEXT)
    return card


def _bar(card: U8, layout: _CardLayout, number: int, *, named: bool) -> U8:
    """Return a view of bar `number` in `card`, rotated so that the bar grows from the last row upwards."""
    if not named:
        top, left = layout.pad + layout.title, layout.left + number * layout.step
        return card[top : top + layout.length, left : left + layout.thickness]
    top = 2 * layout.pad + layout.title + number * layout.step + (layout.step - layout.thickness) // 2
    horizontal = card[top : top + layout.thickness, layout.left : layout.left + layout.length]
    return horizontal.transpose(1, 0, 2)[::-1]


def _name_px(text_px: int) -> int:
    return max(9, round(0.8 * text_px))


def _paste(image: U8, card: U8, rect: _Rect) -> None:
    target = image[rect.top : rect.bottom, rect.left : rect.right]
    height, width = target.shape[:2]
    cv2.addWeighted(target, 1 - _OPACITY, card[:height, :width], _OPACITY, 0, dst=target)


# Text


def _write(card: U8, text: U8, at: tuple[int, int], colour: Colour) -> None:
    left, top = at
    target = card[top : top + text.shape[0], left : left + text.shape[1]]
    alpha = text[: target.shape[0], : target.shape[1], None].astype(np.float32) / 255
    target[:] = target + alpha * (np.array(colour, np.float32) - target)


@lru_cache(maxsize=512)
def _text(text: str, px: int, *, bold: bool) -> U8:
    """Render `text` as coverage 0..255, uint8 (h, w); h depends on the font size only."""
    font = _font(px, bold)
    ascent, descent = font.getmetrics()
    canvas = Image.new("L", (round(font.getlength(text)) + 1, ascent + descent))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=font)
    return np.asarray(canvas)


@lru_cache(maxsize=16)
def _font(px: int, bold: bool) -> ImageFont.FreeTypeFont:
    # The stroke fonts of OpenCV are not readable at small sizes.
    return ImageFont.truetype(_font_dir() / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"), px)


def _font_dir() -> Path:
    """Return the folder of DejaVu: that of Matplotlib, which is not imported, or else that of the system.

    The container image of cameras contains the fonts, but not Matplotlib.
    """
    matplotlib = find_spec("matplotlib")
    if matplotlib is None or matplotlib.origin is None:
        return Path("/usr/share/fonts/truetype/dejavu")
    return Path(matplotlib.origin).with_name("mpl-data") / "fonts" / "ttf"


def annotate(
    image: U8, labelled: LabelledFrame, regions: Sequence[F32], redaction: Redaction | None, annotator: Annotator
) -> U8:
    """Return a copy of `image`, uint8 (H, W, 3) BGR, with `regions` redacted and the faces drawn."""
    annotated = image.copy()
    if redaction is not None:
        for region in regions:
            redact_region(annotated, region, redaction.kind)
    annotator.draw(annotated, labelled.faces)
    return annotated


# Previews

PREVIEW_LONG_SIDE_PX = 640
_JPEG_QUALITY = 70


def preview_of(frame: Frame, regions: Sequence[F32] = ()) -> Preview:
    """Return `frame` as a JPEG with a long side of at most 640 px and the boxes `regions` (xyxy px) blurred.

    About 25 KB for an indoor scene, at a quality at which unredacted faces are clear.
    """
    height, width = frame.pixels.shape
    scale = min(1.0, PREVIEW_LONG_SIDE_PX / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Always a copy, because the pixels of the frame are shared.
    small = np.array(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    for region in regions:
        redact_region(small, region * scale, "blur")
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return Preview(frame.stream_id, frame.index, width, height, jpeg.tobytes())
