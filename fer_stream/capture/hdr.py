"""Tone mapping of HDR video, PQ and HLG, to the standard range of BT.709.

Formulas are those of ITU-R BT.2100-2 (PQ, HLG), BT.2390-11 section 5.4.1 (tone mapping), BT.2087-0 (BT.2020 to
BT.709) and BT.1886 (gamma of a standard display). The content is assumed to be graded for 1,000 cd/m², HLG's nominal
peak and that of most PQ video; the target is a display of 100 cd/m². Luminance is mapped and chromaticity preserved,
so that skin keeps its colour.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorTrc

if TYPE_CHECKING:
    from fer_stream.records import F64, U8

PEAK_CD_M2, SDR_PEAK_CD_M2 = 1_000.0, 100.0
_SDR_GAMMA = 2.4

RGB_FORMAT = "gbrp16le"
"""Format of the frames that `ToneMapper.bgr` converts; FFmpeg's lut3d is fastest with 16-bit planes."""

# Points per axis of the table. Its error is 0.5 of 255 on average, and below 5.1 for 99 % of all colours.
_LATTICE = 33

# BT.2100-2, table 4.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
# BT.2100-2, table 5. The system gamma for 1,000 cd/m² is 1.2.
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_HLG_GAMMA = 1.2
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
_BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)  # fmt: skip


def _pq_to_light(code: F64) -> F64:
    """Return luminance in cd/m² of PQ code values 0..1."""
    root = np.maximum(code, 0) ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1))


def _light_to_pq(light: F64) -> F64:
    powered = (np.maximum(light, 0) / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * powered) / (1 + _C3 * powered)) ** _M2)


def _hlg_to_light(code: F64) -> F64:
    """Return light in cd/m² on a display of 1,000 cd/m² of HLG code values 0..1, (…, 3)."""
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - _C) / _A) + _B) / 12)
    luminance = (scene @ _LUMINANCE)[..., None]
    return np.asarray(PEAK_CD_M2 * scene * luminance ** (_HLG_GAMMA - 1))


TRANSFERS: dict[int, Callable[[F64], F64]] = {ColorTrc.SMPTE2084: _pq_to_light, ColorTrc.ARIB_STD_B67: _hlg_to_light}
"""Transfer characteristic of ITU-T H.273 → function from code values to cd/m²."""


def _compress(luminance: F64) -> F64:
    """Map 0..1,000 to 0..100 cd/m² (BT.2390: identical below the knee, a Hermite spline above it)."""
    peak, target = _light_to_pq(np.array([PEAK_CD_M2, SDR_PEAK_CD_M2])).tolist()
    target /= peak
    knee = 1.5 * target - 0.5
    code = np.minimum(_light_to_pq(luminance) / peak, 1)
    t = np.clip((code - knee) / (1 - knee), 0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * target
    )  # fmt: skip
    return _pq_to_light(np.where(code < knee, code, spline) * peak)


def tone_map(rgb: F64, transfer: int) -> F64:
    """Convert code values of BT.2020 RGB, 0..1 (…, 3), with a transfer of `TRANSFERS` to those of BT.709, 0..1."""
    light = TRANSFERS[transfer](rgb)
    luminance = light @ _LUMINANCE
    mapped = light * (_compress(luminance) / np.maximum(luminance, 1e-9))[..., None]
    standard = np.clip(mapped @ _BT2020_TO_BT709.T / SDR_PEAK_CD_M2, 0, 1)
    return np.asarray(standard ** (1 / _SDR_GAMMA))


class ToneMapper:
    """Tone mapping of frames with one transfer characteristic, a key of `TRANSFERS`, by tables.

    Raises `OSError` if the table cannot be written to a temporary file, from which FFmpeg reads it.
    """

    def __init__(self, transfer: int) -> None:
        self.transfer = transfer
        self._size: tuple[int, int] | None = None
        self._gray: dict[tuple[int, bool], U8] = {}

    def bgr(self, frame: VideoFrame) -> VideoFrame:
        """Convert a frame of `RGB_FORMAT` to bgr24. Must be called by one thread at a time."""
        if self._size != (frame.width, frame.height):
            self._size = (frame.width, frame.height)
            self._graph = self._make_graph(frame)
        self._graph.vpush(frame)
        return self._graph.vpull()

    def gray_of_luma(self, bits: int, *, full_range: bool) -> U8:
        """Return a table from luma of `bits` to gray, uint8 (2^bits,): that of the neutral colour with this luma."""
        key = (bits, full_range)
        if key not in self._gray:
            black, white = (0, 2**bits - 1) if full_range else (16 << (bits - 8), 235 << (bits - 8))
            code = np.clip((np.arange(2**bits) - black) / (white - black), 0, 1)
            neutral = tone_map(np.repeat(code[:, None], 3, axis=1), self.transfer)[:, 1]
            self._gray[key] = np.rint(255 * neutral).astype(np.uint8)
        return self._gray[key]

    def _make_graph(self, frame: VideoFrame) -> Graph:
        graph = Graph()
        with tempfile.NamedTemporaryFile("w", suffix=".cube") as file:
            file.write(_cube(self.transfer))
            file.flush()
            nodes = [
                graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, av.time_base)
                ),
                graph.add("lut3d", file=file.name),
                graph.add("format", "pix_fmts=bgr24"),
                graph.add("buffersink"),
            ]
        graph.link_nodes(*nodes).configure()
        return graph


def _cube(transfer: int) -> str:
    """Return the table of all colours as a .cube file: red changes fastest, blue slowest."""
    axis = np.linspace(0, 1, _LATTICE)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    colours = tone_map(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer)
    lines = (f"{r:.5f} {g:.5f} {b:.5f}\n" for r, g, b in colours.tolist())
    return f"LUT_3D_SIZE {_LATTICE}\n" + "".join(lines)
