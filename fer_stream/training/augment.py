"""Random augmentation of training images: affine warp, light, erasing, mixup, and degradations of a camera.

Except for `film`, everything is `keras.ops` over whole batches and is compiled into the training step on any backend.
The random layers of Keras took over 100 s on an H100 without finishing an epoch. `film` encodes faces as H.264 video.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import cv2
import keras
import numpy as np
from keras import ops

from fer_stream.records import CROP_SIZE_PX, F32, U8

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_stream.config.training import AugmentSettings

Tensor = Any
"""Tensor of any Keras backend."""

_MIDDLE = (CROP_SIZE_PX - 1) / 2
_SMALL_PX = (24, 16, 12)
_BLUR_PX = np.exp(-0.5 * (np.arange(-4, 5) / 1.8) ** 2)
_BLUR = (np.outer(_BLUR_PX, _BLUR_PX) / _BLUR_PX.sum() ** 2).astype(np.float32)[..., None, None]
"""A Gaussian of 1.8 px: the kernel of a convolution, float32 (9, 9, 1, 1)."""
_QUALITY = (10, 80)
_NOISE = 0.1
_SHARES = 4096

# The discrete cosine transform of eight values, and the steps for luminance of the JPEG standard (ITU-T T.81, table
# K.1), which in libjpeg's scale are those of quality 50.
_COSINES = np.array(
    [[math.sqrt((1 if wave else 0.5) / 4) * math.cos((2 * place + 1) * wave * math.pi / 16) for place in range(8)]
     for wave in range(8)], np.float32,
)  # fmt: skip
_LUMINANCE = np.array(
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
     [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]], np.float32,
).reshape(1, 1, 8, 1, 8)  # fmt: skip


class Augment:
    """Random augmentation of batches. All randomness comes from `seed`, which the owner can reset."""

    def __init__(self, settings: AugmentSettings, seed: keras.random.SeedGenerator) -> None:
        self._settings = settings
        self._seed = seed
        self._shares = _shares(settings.mixup)

    def __call__(self, faces: Tensor) -> Tensor:
        """Warp, relight and erase faces float32 (n, 48, 48, c), values 0..255; same shape and range.

        The c channels of a face are changed in the same way.
        """
        return self._changed(faces, self._warp, self._light, self._erase)

    def corrupt(self, faces: Tensor) -> Tensor:
        """Degrade faces as a poor camera does: small, blurred, compressed or noisy; same shape and range."""
        return self._changed(faces, self._shrink, self._blur, self._compress, self._noise)

    def mixup_share(self) -> Tensor:
        """Return the weight of each image when mixed with another, float32 (); 1 in every second batch on average."""
        one = ops.cast(self._any((), 0, _SHARES), "int32")
        share = ops.take(ops.convert_to_tensor(self._shares), one)
        return ops.where(self._any((), 0, 1) < 0.5, share, 1.0)

    def _changed(self, faces: Tensor, *changes: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        n = ops.shape(faces)[0]
        faces = faces / 255
        for change in changes:
            faces = ops.clip(change(faces, n), 0, 1)
        return faces * 255

    def _warp(self, faces: Tensor, n: Tensor) -> Tensor:
        """Mirror, rotate, scale, stretch and shift with one bilinear sampling; edges are replicated."""
        settings, each = self._settings, (n, 1)
        angle = self._either_way(each, math.radians(settings.rotation_deg))
        size = ops.exp(self._either_way(each, math.log1p(settings.scale)))
        stretch = ops.exp(self._either_way(each, math.log1p(settings.aspect)) / 2)
        mirror = ops.where(self._any(each, 0, 1) < 0.5, -1.0, 1.0)
        rows, columns = _grid()
        x, y = columns * mirror * size * stretch, rows * size / stretch
        move_px = settings.shift * CROP_SIZE_PX
        from_x = ops.cos(angle) * x - ops.sin(angle) * y + self._either_way(each, move_px) + _MIDDLE
        from_y = ops.sin(angle) * x + ops.cos(angle) * y + self._either_way(each, move_px) + _MIDDLE
        views = [sample(ops.reshape(faces[..., one], (n, -1)), from_x, from_y) for one in range(faces.shape[-1])]
        return ops.reshape(ops.stack(views, axis=-1), (n, CROP_SIZE_PX, CROP_SIZE_PX, len(views)))

    def _shrink(self, faces: Tensor, n: Tensor) -> Tensor:
        """Reduce some faces to the size of a distant face and enlarge them again."""
        chance, share = self._any((n, 1, 1, 1), 0, 1), self._settings.shrink / len(_SMALL_PX)
        for number, side_px in enumerate(_SMALL_PX, start=1):
            block_px = CROP_SIZE_PX // side_px
            small = ops.mean(ops.reshape(faces, (n, side_px, block_px, side_px, block_px, 1)), axis=(2, 4))
            again = ops.image.resize(small, (CROP_SIZE_PX, CROP_SIZE_PX), interpolation="bilinear")
            faces = ops.where((chance >= (number - 1) * share) & (chance < number * share), again, faces)
        return faces

    def _blur(self, faces: Tensor, n: Tensor) -> Tensor:
        """Blur some faces, each with a random share of the maximum blur."""
        edge_px = _BLUR.shape[0] // 2
        around = ops.pad(faces, ((0, 0), (edge_px, edge_px), (edge_px, edge_px), (0, 0)), mode="symmetric")
        blurred = ops.conv(around, ops.convert_to_tensor(_BLUR), padding="valid")
        share = ops.where(self._some(n, self._settings.blur), self._any((n, 1, 1, 1), 0, 1), 0.0)
        return faces + share * (blurred - faces)

    def _compress(self, faces: Tensor, n: Tensor) -> Tensor:
        """Compress some faces as JPEG does: quantised frequencies of blocks of 8 px."""
        side, turn = CROP_SIZE_PX // 8, ops.convert_to_tensor(_COSINES)
        quality = self._any((n, 1, 1, 1, 1), *_QUALITY)
        steps = ops.convert_to_tensor(_LUMINANCE) * ops.where(quality < 50, 50 / quality, 2 - quality / 50)
        blocks = ops.reshape(faces * 255 - 128, (n, side, 8, side, 8))
        waves = ops.einsum("ab,nrbsc,dc->nrasd", turn, blocks, turn)
        waves = ops.round(waves / steps) * steps
        again = (ops.einsum("ba,nrbsc,cd->nrasd", turn, waves, turn) + 128) / 255
        again = ops.reshape(again, (n, CROP_SIZE_PX, CROP_SIZE_PX, 1))
        return ops.where(self._some(n, self._settings.compress), again, faces)

    def _light(self, faces: Tensor, n: Tensor) -> Tensor:
        settings, each = self._settings, (n, 1, 1, 1)
        faces = ops.clip(faces, 1e-3, 1) ** ops.exp(self._either_way(each, settings.gamma))
        mean = ops.mean(faces, axis=(1, 2), keepdims=True)
        contrast = 1 + self._either_way(each, settings.contrast)
        return mean + contrast * (faces - mean) + self._either_way(each, settings.brightness)

    def _noise(self, faces: Tensor, n: Tensor) -> Tensor:
        deviation = ops.where(self._some(n, self._settings.noise), self._any((n, 1, 1, 1), 0, _NOISE), 0.0)
        return faces + deviation * keras.random.normal(ops.shape(faces), seed=self._seed)

    def _erase(self, faces: Tensor, n: Tensor) -> Tensor:
        """Fill a rectangle with a random gray in some faces."""
        settings, each = self._settings, (n, 1, 1, 1)
        rows, columns = _grid()
        rows, columns = (ops.reshape(axis, (1, CROP_SIZE_PX, CROP_SIZE_PX, 1)) for axis in (rows, columns))
        least, most = settings.erase_px
        inside = self._any(each, 0, 1) < settings.erase
        for axis in (rows, columns):
            half_px = self._any(each, least, most) / 2
            inside = inside & (ops.abs(axis - self._either_way(each, _MIDDLE)) < half_px)
        return ops.where(inside, self._any(each, 0, 1), faces)

    def _some(self, n: Tensor, share: float) -> Tensor:
        return self._any((n, 1, 1, 1), 0, 1) < share

    def _either_way(self, shape: tuple[Any, ...], most: float) -> Tensor:
        return self._any(shape, -most, most)

    def _any(self, shape: tuple[Any, ...], low: float, high: float) -> Tensor:
        return keras.random.uniform(shape, low, high, seed=self._seed)


def sample(flat: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample images float32 (n, 48 · 48) bilinearly at x, y float32 (n, m) in px; returns (n, m)."""
    x, y = (ops.clip(axis, 0, CROP_SIZE_PX - 1) for axis in (x, y))
    left, top = (ops.clip(ops.floor(axis), 0, CROP_SIZE_PX - 2) for axis in (x, y))
    right_share, low_share = x - left, y - top
    corner = ops.cast(top * CROP_SIZE_PX + left, "int32")

    def at(offset: int) -> Tensor:
        return ops.take_along_axis(flat, corner + offset, axis=1)

    upper = at(0) * (1 - right_share) + at(1) * right_share
    lower = at(CROP_SIZE_PX) * (1 - right_share) + at(CROP_SIZE_PX + 1) * right_share
    return upper * (1 - low_share) + lower * low_share


def _shares(alpha: float) -> F32:
    """Return draws of a beta distribution, float32 (4096,), because XLA cannot draw them on a GPU."""
    if alpha == 0:
        return np.ones(_SHARES, np.float32)
    return np.random.default_rng(0).beta(alpha, alpha, _SHARES).astype(np.float32)


def _grid() -> tuple[Tensor, Tensor]:
    """Return row and column of each pixel relative to the centre, float32 (1, 48 · 48)."""
    axis = ops.arange(CROP_SIZE_PX, dtype="float32") - _MIDDLE
    rows, columns = ops.meshgrid(axis, axis, indexing="ij")
    return ops.reshape(rows, (1, -1)), ops.reshape(columns, (1, -1))


CRF = (28, 36)
"""Default range of the constant rate factor of `film`: a good and a poor video call."""
SIDE_PX = (28, 144)
"""Default range of the side of a face in the video."""

_COLUMNS = 8
_FACES_PER_VIDEO = _COLUMNS**2
_FRAMES = 4
_MOVE_PX = 2.0
_BLOCK_PX = 16  # of H.264; with other frame sizes the output of libx264 is not deterministic
_FPS = 25
_GRAY = 128


def film(
    images: U8, rng: np.random.Generator, *, crf: tuple[int, int] = CRF, side_px: tuple[int, int] = SIDE_PX
) -> U8:
    """Encode faces uint8 (n, 48, 48) as H.264 video and crop them again; same shape.

    A video contains 64 faces. Its constant rate factor and the side of its faces are
    drawn from the ranges `crf` and `side_px` (the side on a logarithmic scale). Each face moves by up to 2 px
    per frame; one of the frames is returned. An equal `rng` gives equal images.
    """
    found = np.empty_like(images)
    for start in range(0, len(images), _FACES_PER_VIDEO):
        some = images[start : start + _FACES_PER_VIDEO]
        low, high = np.log(side_px)
        side = round(math.exp(rng.uniform(low, high)))
        found[start : start + len(some)] = _film_one_video(some, rng, side, int(rng.integers(crf[0], crf[1] + 1)))
    return found


def _film_one_video(faces: U8, rng: np.random.Generator, side_px: int, crf: int) -> U8:
    """Encode faces uint8 (n, 48, 48) in one video with constant rate factor `crf`, at the side `side_px`."""
    edge_px = max(4, side_px // 8)
    cell_px = side_px + 2 * edge_px
    cell_px += -cell_px % _BLOCK_PX
    rows = math.ceil(len(faces) / _COLUMNS)
    large = [_place_in_cell(face, side_px, cell_px, edge_px) for face in faces]
    moves = rng.uniform(-_MOVE_PX, _MOVE_PX, (len(faces), 2))
    kept = int(rng.integers(_FRAMES))
    pictures = []
    for number in range(_FRAMES):
        picture = np.full((rows * cell_px, _COLUMNS * cell_px), _GRAY, np.uint8)
        for place, (face, move) in enumerate(zip(large, moves * (number - kept), strict=True)):
            top, left = place // _COLUMNS * cell_px, place % _COLUMNS * cell_px
            picture[top : top + cell_px, left : left + cell_px] = _shift(face, *move) if number != kept else face
        pictures.append(picture)
    picture = _encode_and_decode(pictures, crf)[kept]
    cells = picture.reshape(rows, cell_px, _COLUMNS, cell_px).swapaxes(1, 2).reshape(-1, cell_px, cell_px)
    kernel = cv2.INTER_AREA if side_px > CROP_SIZE_PX else cv2.INTER_LINEAR
    inner = slice(edge_px, edge_px + side_px)
    return np.stack([
        cv2.resize(cell[inner, inner], (CROP_SIZE_PX, CROP_SIZE_PX), interpolation=kernel)
        for cell in cells[: len(faces)]
    ])  # fmt: skip


def _place_in_cell(face: U8, side_px: int, cell_px: int, edge_px: int) -> U8:
    """Scale a face to `side_px` and centre it in a cell of `cell_px` with a mirrored border."""
    kernel = cv2.INTER_CUBIC if side_px > CROP_SIZE_PX else cv2.INTER_AREA
    scaled = cv2.resize(face, (side_px, side_px), interpolation=kernel)
    after = cell_px - side_px - edge_px
    return np.asarray(cv2.copyMakeBorder(scaled, edge_px, after, edge_px, after, cv2.BORDER_REFLECT), np.uint8)


def _shift(cell: U8, right_px: float, down_px: float) -> U8:
    matrix = np.array([[1, 0, right_px], [0, 1, down_px]])
    return np.asarray(cv2.warpAffine(cell, matrix, cell.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _encode_and_decode(pictures: list[U8], crf: int) -> list[U8]:
    """Encode and decode gray frames uint8 (h, w) with H.264; sides must be multiples of 16."""
    height, width = pictures[0].shape
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(_FPS), Fraction(1, _FPS)
    encoder.options = {"crf": str(crf), "preset": "veryfast"}
    decoder = av.CodecContext.create("h264", "r")
    encoder.thread_count = decoder.thread_count = 1  # the result of several threads is not deterministic
    colours = np.full((height // 2, width), _GRAY, np.uint8)
    packets = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.concatenate([picture, colours]), format="yuv420p")
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    decoded.sort(key=lambda frame: frame.pts or 0)
    return [np.asarray(frame.to_ndarray()[:height], np.uint8) for frame in decoded]
