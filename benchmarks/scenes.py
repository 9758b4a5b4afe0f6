"""Films whose truth is known: heads cut out of real clips, in scenes of `tests.support.synthetic`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext

from benchmarks.material import clip_frames
from fer_stream import FileSettings, analyze
from fer_stream.api import Analysis
from fer_stream.config import DetectorSettings
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, LABELS, U8
from tests.support.synthetic import Scene, SyntheticSource

FPS = 15
WIDTH, HEIGHT = 640, 360
LOOP_S = 60.0

# A stream can be joined at a key picture only: as often as many cameras send one.
_KEY_EVERY = FPS
# A head is so much larger than the box of its face; where it melts into the background, in parts of its side.
_MARGIN = 0.45
_FEATHER = 0.06

_CLIPS = ("one_face_smile", "one_face_crying", "two_faces")
# A face that wears an emotion well enough to be cut out for it.
_CLEAR = 0.5
# A head of a scene with three people is as small as this. Seen in it with less confidence, it may be lost at times.
_SMALLEST_PX = 132
_CERTAIN = 0.75
_GRAY = 120
# A crowd stands in lines of tiles, which fill 1280×720; so many sides of a face's box are a tile's height.
_CAST = (*_CLIPS, "three_faces")
_COLUMNS, _LINES, _TILE_PX = 5, 4, (256, 180)
_AROUND = 1.7
_TILE_FRAMES = 90
CROWD = _COLUMNS * _LINES
"""So many faces at the most."""

# Nobody looks the same all the time.
_PICTURES = 2


@dataclass(frozen=True, slots=True)
class Film:
    """A scene, encoded: `clip` is one loop as MP4, `stream` the same as the raw H.264 that a camera plays."""

    scene: Scene
    clip: Path
    stream: Path

    @property
    def frames(self) -> int:
        """Pictures in one loop."""
        return int(self.scene.duration_s * FPS)


def cut_heads(clips: Path, weights: Path, sprites: Path) -> None:
    """Cut heads out of the clips: a folder per person in `sprites`, in it the clearest picture of each emotion.

    Heads that are not found for certain are left out. Everybody has a mirror image, who is somebody else.
    """
    settings = _settings(weights)
    for name in _CLIPS:
        analysis = analyze(clips / f"{name}.mp4", settings)
        images = dict(enumerate(clip_frames(clips / f"{name}.mp4", every=1)))
        for person, best in _clearest(analysis).items():
            heads = {label: _head(images[index], xyxy) for label, (index, xyxy) in best.items()}
            mirrored = {label: np.ascontiguousarray(head[:, ::-1]) for label, head in heads.items()}
            folder = sprites / f"{name.replace('_', '-')}-{person}"
            _keep(heads, folder, settings)
            _keep(mirrored, folder.with_name(f"{folder.name}-mirrored"), settings)


def _keep(heads: dict[str, U8], folder: Path, settings: FileSettings) -> None:
    """Write the heads of one person, if enough of them are convincing."""
    folder.mkdir(parents=True)
    convincing = {label: head for label, head in heads.items() if _is_seen(head, label, folder, settings)}
    if len(convincing) < _PICTURES:
        folder.rmdir()
        return
    for label, head in convincing.items():
        cv2.imwrite(str(folder / f"{label}.png"), head)


def _clearest(analysis: Analysis) -> dict[int, dict[str, tuple[int, F32]]]:
    """Person → label → index of the frame in which they wear it most clearly, and their box in it."""
    found: dict[int, dict[str, tuple[int, F32]]] = {}
    sure: dict[tuple[int, str], float] = {}
    for frame in analysis.frames:
        for face in frame.faces:
            label, prob = LABELS[int(face.probs.argmax())], float(face.probs.max())
            if face.quality.ok and prob > sure.get((face.person_id, label), _CLEAR):
                sure[face.person_id, label] = prob
                found.setdefault(face.person_id, {})[label] = frame.index, face.xyxy
    return found


def _head(image: U8, xyxy: F32) -> U8:
    """The head around a face, square, as an ellipse with a soft edge, uint8 (side, side, 4)."""
    x1, y1, x2, y2 = (float(edge) for edge in xyxy)
    half = (1 + 2 * _MARGIN) * max(x2 - x1, y2 - y1) / 2
    side, centre = round(2 * half), ((x1 + x2) / 2, (y1 + y2) / 2)
    square = cv2.getRectSubPix(image, (side, side), centre)
    alpha = np.zeros((side, side), np.uint8)
    axes = (round(side * (0.42 - _FEATHER)), round(side * (0.5 - _FEATHER)))
    cv2.ellipse(alpha, (side // 2, side // 2), axes, 0, 0, 360, 255, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), _FEATHER * side / 2).astype(np.uint8)
    return np.dstack([square, alpha]).astype(np.uint8)


def _is_seen(head: U8, label: str, folder: Path, settings: FileSettings) -> bool:
    """Is a head, as small as it will be shown, found for certain and still what it was cut out for?"""
    side = min(_SMALLEST_PX, len(head))
    small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha, left, top = small[..., 3:] / 255, (WIDTH - side) // 2, (HEIGHT - side) // 2
    picture = np.full((HEIGHT, WIDTH, 3), _GRAY, np.float32)
    picture[top : top + side, left : left + side] = alpha * small[..., :3] + (1 - alpha) * _GRAY
    path = folder / "look.png"
    cv2.imwrite(str(path), picture.astype(np.uint8))
    (frame,) = analyze(path, settings).frames
    path.unlink()
    return [LABELS[int(face.probs.argmax())] for face in frame.faces if face.confidence > _CERTAIN] == [label]


def make_film(sprites: Path, folder: Path, *, seed: int, people: int) -> Film:
    """Draw a scene from `seed` and encode it as cameras do."""
    scene = Scene(sprites, seed=seed, people=people, width=WIDTH, height=HEIGHT, duration_s=LOOP_S)
    film = Film(scene, folder / f"film-{seed}.mp4", folder / f"film-{seed}.h264")
    frames = SyntheticSource(scene, name="film", stream_start_ms=1, fps=FPS).frames()
    encode((frame.image for frame in frames), film.clip, FPS, as_camera=True)
    film.stream.write_bytes(b"".join(_annex_b(film.clip)))
    return film


def camera_of(clip: Path, folder: Path) -> tuple[Path, Path]:
    """A real clip as a camera would send it, 640×360 at 15 fps: as MP4, and as the raw H.264 that a camera plays."""
    again, stream = folder / f"{clip.stem}.mp4", folder / f"{clip.stem}.h264"
    encode(resized(clip, FPS, (WIDTH, HEIGHT)), again, FPS, as_camera=True)
    stream.write_bytes(b"".join(_annex_b(again)))
    return again, stream


def resized(clip: Path, fps: float, size: tuple[int, int]) -> Iterator[U8]:
    """The pictures of a clip at another rate and size (width, height)."""
    rate, given = rate_of(clip), 0
    for index, image in enumerate(clip_frames(clip, every=1)):
        while given / fps <= index / rate:
            yield cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
            given += 1


def cast(clips: Path, weights: Path) -> list[list[U8]]:
    """Twenty moving faces, each the pictures of a tile: of the people in the clips, and of their mirror images.

    Where these are fewer, the same come again from another moment on.
    """
    people = [tile for name in _CAST for tile in _tiles(clips / f"{name}.mp4", weights)]
    everyone = [*people, *([np.ascontiguousarray(image[:, ::-1]) for image in tile] for tile in people)]
    turned = chain.from_iterable(
        (tile[shift % len(tile) :] + tile[: shift % len(tile)] for tile in everyone) for shift in range(0, 300, 7)
    )
    return list(islice(turned, CROWD))


def _tiles(clip: Path, weights: Path) -> list[list[U8]]:
    """What the parts of the picture around each face of the first one show from then on, forwards and backwards."""
    images = list(islice(clip_frames(clip, every=1), _TILE_FRAMES))
    detector = YuNetDetector(weights, input_size_px=max(images[0].shape), min_confidence=0.7)
    width, height = _TILE_PX
    tiles = []
    for x1, y1, x2, y2 in detector.detect(images[0]).xyxy.tolist():
        tall = _AROUND * max(x2 - x1, y2 - y1)
        size, centre = (round(tall * width / height), round(tall)), ((x1 + x2) / 2, (y1 + y2) / 2)
        shown = [cv2.resize(cv2.getRectSubPix(image, size, centre), _TILE_PX).astype(np.uint8) for image in images]
        tiles.append([*shown, *shown[::-1]])
    return tiles


def view(tiles: Sequence[Sequence[U8]], index: int) -> U8:
    """The picture number `index` of those who are there, uint8 (720, 1280, 3)."""
    width, height = _TILE_PX
    image = np.full((_LINES * height, _COLUMNS * width, 3), _GRAY, np.uint8)
    for number, tile in enumerate(tiles):
        line, column = divmod(number, _COLUMNS)
        rows = slice(line * height, (line + 1) * height)
        image[rows, column * width : (column + 1) * width] = tile[index % len(tile)]
    return image


def rate_of(clip: Path) -> float:
    """Frames a second."""
    with av.open(str(clip)) as container:
        rate = container.streams.video[0].average_rate
    assert rate is not None
    return float(rate)


def encode(images: Iterable[U8], target: Path, fps: int, *, as_camera: bool) -> None:
    """Write pictures as H.264 in MP4: as cameras do, one slice a picture and no B-frames, or as recordings are."""
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "20"}
        if as_camera:
            stream.codec_context.gop_size = _KEY_EVERY
            stream.codec_context.thread_count = 1
            stream.options |= {"tune": "zerolatency", "x264-params": "sliced-threads=0:scenecut=0"}
        for index, image in enumerate(images):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            picture = av.VideoFrame.from_ndarray(image, format="bgr24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _annex_b(clip: Path) -> Iterator[bytes]:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        convert = BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            yield from (bytes(part) for part in convert.filter(packet))


def repeated(clip: Path, times: int, target: Path) -> float:
    """Write a clip `times` times in a row, without encoding it again; its frame rate."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = source.streams.video[0]
        assert stream.average_rate is not None
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in source.demux(stream) if packet.pts is not None and packet.dts is not None]
        length = sum(packet.duration or 0 for packet in packets)
        for _ in range(times):
            for packet in packets:
                packet.stream = copy
                out.mux(packet)
                packet.pts, packet.dts = (packet.pts or 0) + length, (packet.dts or 0) + length
        return float(stream.average_rate)


def told_by_run(film: Film, weights: Path) -> list[tuple[str, ...]]:
    """What `fer-stream run` says of every picture of a loop: the labels of its faces, from left to right.

    It is told of the second of two loops: a camera that is watched was watched before.
    """
    twice = film.clip.with_suffix(".twice.mp4")
    repeated(film.clip, 2, twice)
    frames = analyze(twice, _settings(weights)).frames[film.frames :]
    return [
        tuple(face.label for face in sorted(frame.faces, key=lambda face: float(face.xyxy[0]))) for frame in frames
    ]


def _settings(weights: Path) -> FileSettings:
    return FileSettings(detector=DetectorSettings(type="yunet", weights=weights))
