"""HEIC and AVIF images as phones write them: one picture as a grid of tiles, rotated, with EXIF (ISO/IEC 23008-12).

pi-heif only decodes, and Pillow writes AVIF without a grid. The tiles are coded by FFmpeg or Pillow, and the boxes
around them are built here.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import av
import numpy as np
from PIL import Image

from fer_stream.records import U8


def grid_image(bgr: U8, *, codec: str, tile_px: int = 256, rotation: int = 0, exif: bytes = b"") -> bytes:
    """Return `bgr`, uint8 (H, W, 3), as the file of a `heic` or `avif` image with a grid of tiles.

    A viewer turns it by `rotation` times 90° anticlockwise. `exif` is a TIFF header with directories.
    """
    height, width = bgr.shape[:2]
    rows, columns = -(-height // tile_px), -(-width // tile_px)
    padded = np.pad(bgr, ((0, rows * tile_px - height), (0, columns * tile_px - width), (0, 0)), "edge")
    blocks = [
        padded[y : y + tile_px, x : x + tile_px]
        for y in range(0, rows * tile_px, tile_px)
        for x in range(0, columns * tile_px, tile_px)
    ]
    kind, encode = {"heic": (b"hvc1", _hevc), "avif": (b"av01", _av1)}[codec]
    tiles = [encode(np.ascontiguousarray(block)) for block in blocks]
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    items = [_Item(kind, tile.data, hidden=True) for tile in tiles]
    items.append(_Item(b"grid", layout))
    if exif:
        items.append(_Item(b"Exif", struct.pack(">I", 0) + exif))
    properties = [
        tiles[0].configuration,
        _full_box(b"ispe", 0, struct.pack(">II", tile_px, tile_px)),
        _full_box(b"ispe", 0, struct.pack(">II", width, height)),
        _box(b"irot", bytes([rotation])),
    ]
    return _file(codec.encode(), items, properties, tiles=len(tiles))


@dataclass(frozen=True)
class _Tile:
    configuration: bytes
    """Box with the parameters of the decoder, hvcC or av1C."""
    data: bytes


@dataclass(frozen=True)
class _Item:
    kind: bytes
    data: bytes
    hidden: bool = False


def _hevc(bgr: U8) -> _Tile:
    file = io.BytesIO()
    # Matroska has the same configuration and packets as MP4, whose muxer rejects some of them at random.
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx265", rate=1, width=bgr.shape[1], height=bgr.shape[0], pix_fmt="yuv420p")
        stream.options = {"x265-params": "log-level=error:info=0:keyint=1", "crf": "10"}
        container.mux(stream.encode(av.VideoFrame.from_ndarray(bgr, "bgr24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as container:
        packet = next(container.demux(video=0))
        return _Tile(_box(b"hvcC", container.streams.video[0].codec_context.extradata or b""), bytes(packet))


def _av1(bgr: U8) -> _Tile:
    file = io.BytesIO()
    Image.fromarray(bgr[..., ::-1]).save(file, "AVIF", quality=90)
    return _Tile(_find_box(file.getvalue(), b"av1C"), _find_box(file.getvalue(), b"mdat")[8:])


def _find_box(data: bytes, kind: bytes) -> bytes:
    start = data.index(kind) - 4
    (size,) = struct.unpack_from(">I", data, start)
    return data[start : start + size]


def _file(brand: bytes, items: list[_Item], properties: list[bytes], *, tiles: int) -> bytes:
    grid = tiles + 1
    entries = b"".join(
        _full_box(b"infe", 2 << 24 | item.hidden, struct.pack(">HH4sB", number, 0, item.kind, 0))
        for number, item in enumerate(items, 1)
    )
    references = _box(b"dimg", struct.pack(f">HH{tiles}H", grid, tiles, *range(1, tiles + 1)))
    if len(items) > grid:
        references += _box(b"cdsc", struct.pack(">HHH", grid + 1, 1, grid))
    # Numbers of properties; 0x80 marks those that a reader must understand.
    used = {number: [0x81, 2] for number in range(1, tiles + 1)} | {grid: [3, 0x84]}
    associations = b"".join(struct.pack(">HB", number, len(of)) + bytes(of) for number, of in used.items())
    parts = [
        _full_box(b"hdlr", 0, struct.pack(">I4s12xB", 0, b"pict", 0)),
        _full_box(b"pitm", 0, struct.pack(">H", grid)),
        _full_box(b"iinf", 0, struct.pack(">H", len(items)), entries),
        _full_box(b"iref", 0, references),
        _box(
            b"iprp",
            _box(b"ipco", *properties),
            _full_box(b"ipma", 0, struct.pack(">I", len(used)), associations),
        ),
    ]
    header = _box(b"ftyp", brand, struct.pack(">I", 0), b"mif1", brand)
    without_data = len(header) + len(_full_box(b"meta", 0, *parts, _locations(items, 0)))
    meta = _full_box(b"meta", 0, *parts, _locations(items, without_data + 8))
    return header + meta + _box(b"mdat", *(item.data for item in items))


def _locations(items: list[_Item], start: int) -> bytes:
    """Return the box that states where in the file the data of each item are."""
    entries = b""
    for number, item in enumerate(items, 1):
        entries += struct.pack(">HHHII", number, 0, 1, start, len(item.data))
        start += len(item.data)
    return _full_box(b"iloc", 0, struct.pack(">BBH", 0x44, 0, len(items)), entries)


def _box(kind: bytes, *parts: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)


def _full_box(kind: bytes, version_and_flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version_and_flags), *parts)
