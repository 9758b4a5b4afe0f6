"""Videos with ground truth: heads extracted from real clips, in scenes of `tests.support.synthetic`."""

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
from fer_stream.config.settings import DetectorSettings
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, LABELS, U8
from tests.support.synthetic import Scene, SyntheticSource

FPS = 15
WIDTH, HEIGHT = 640, 360
LOOP_S = 60.0

# A client has to wait for a key frame; many cameras send one per second.
_KEY_EVERY = FPS
# Margin around the box of a face, and width of the soft edge, as fractions of the side.
_MARGIN = 0.45
_FEATHER = 0.06

_CLIPS = ("one_face_smile", "one_face_crying", "two_faces")
# Minimum probability of the emotion of an extracted head.
_MIN_PROB = 0.5
# Size of the heads in a scene with three people. Below this confidence, a head of that size can be lost at times.
_SMALLEST_PX = 132
_MIN_CONFIDENCE = 0.75
_GRAY = 120
# Many faces are arranged in a grid of tiles of 1280×720 px. The height of a tile is 1.7 times the side of a face box.
_GRID_CLIPS = (*_CLIPS, "three_faces")
_COLUMNS, _ROWS, _TILE_PX = 5, 4, (256, 180)
_TILE_SCALE = 1.7
_TILE_FRAMES = 90
MAX_FACES = _COLUMNS * _ROWS
"""Maximum number of faces in a frame."""

# Minimum number of expressions per person.
_MIN_EXPRESSIONS = 2


@dataclass(frozen=True, slots=True)
class EncodedScene:
    """Encoded scene: `clip` is one loop as MP4, `stream` the same as raw H.264 for a camera."""

    scene: Scene
    clip: Path
    stream: Path

    @property
    def frames(self) -> int:
        """Number of frames in one loop."""
        return int(self.scene.duration_s * FPS)


def extract_heads(clips: Path, weights: Path, sprites: Path) -> None:
    """Extract heads from the clips: one folder per person in `sprites`, with the clearest image of each emotion.

    Heads with low confidence are skipped. The mirror image of a person is another person.
    """
    settings = _settings(weights)
    for name in _CLIPS:
        analysis = analyze(clips / f"{name}.mp4", settings)
        images = dict(enumerate(clip_frames(clips / f"{name}.mp4", every=1)))
        for person, best in _clearest_faces(analysis).items():
            heads = {label: _cut_head(images[index], xyxy) for label, (index, xyxy) in best.items()}
            mirrored = {label: np.ascontiguousarray(head[:, ::-1]) for label, head in heads.items()}
            folder = sprites / f"{name.replace('_', '-')}-{person}"
            _save_recognised(heads, folder, settings)
            _save_recognised(mirrored, folder.with_name(f"{folder.name}-mirrored"), settings)


def _save_recognised(heads: dict[str, U8], folder: Path, settings: FileSettings) -> None:
    """Write the recognised heads of one person, if they show enough expressions."""
    folder.mkdir(parents=True)
    recognised = {label: head for label, head in heads.items() if _is_recognised(head, label, folder, settings)}
    if len(recognised) < _MIN_EXPRESSIONS:
        folder.rmdir()
        return
    for label, head in recognised.items():
        cv2.imwrite(str(folder / f"{label}.png"), head)


def _clearest_faces(analysis: Analysis) -> dict[int, dict[str, tuple[int, F32]]]:
    """Return person → label → (index of the frame with the highest probability, box of the face in it)."""
    found: dict[int, dict[str, tuple[int, F32]]] = {}
    best_prob: dict[tuple[int, str], float] = {}
    for frame in analysis.frames:
        for face in frame.faces:
            label, prob = LABELS[int(face.probs.argmax())], float(face.probs.max())
            if face.quality.ok and prob > best_prob.get((face.person_id, label), _MIN_PROB):
                best_prob[face.person_id, label] = prob
                found.setdefault(face.person_id, {})[label] = frame.index, face.xyxy
    return found


def _cut_head(image: U8, xyxy: F32) -> U8:
    """Cut the head around a face as an ellipse with a soft edge, uint8 (side, side, 4) BGRA."""
    x1, y1, x2, y2 = (float(edge) for edge in xyxy)
    half = (1 + 2 * _MARGIN) * max(x2 - x1, y2 - y1) / 2
    side, centre = round(2 * half), ((x1 + x2) / 2, (y1 + y2) / 2)
    square = cv2.getRectSubPix(image, (side, side), centre)
    alpha = np.zeros((side, side), np.uint8)
    axes = (round(side * (0.42 - _FEATHER)), round(side * (0.5 - _FEATHER)))
    cv2.ellipse(alpha, (side // 2, side // 2), axes, 0, 0, 360, 255, -1)
    alpha = cv2.GaussianBlur(alpha, (0, 0), _FEATHER * side / 2).astype(np.uint8)
    return np.dstack([square, alpha]).astype(np.uint8)


def _is_recognised(head: U8, label: str, folder: Path, settings: FileSettings) -> bool:
    """Return True if a head in its smallest size is detected and classified as `label`."""
    side = min(_SMALLEST_PX, len(head))
    small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha, left, top = small[..., 3:] / 255, (WIDTH - side) // 2, (HEIGHT - side) // 2
    frame_pixels = np.full((HEIGHT, WIDTH, 3), _GRAY, np.float32)
    frame_pixels[top : top + side, left : left + side] = alpha * small[..., :3] + (1 - alpha) * _GRAY
    path = folder / "probe.png"
    cv2.imwrite(str(path), frame_pixels.astype(np.uint8))
    (frame,) = analyze(path, settings).frames
    path.unlink()
    return [LABELS[int(face.probs.argmax())] for face in frame.faces if face.confidence > _MIN_CONFIDENCE] == [label]


def encode_scene(sprites: Path, folder: Path, *, seed: int, people: int) -> EncodedScene:
    """Create a scene from `seed` and encode it with the settings of a camera."""
    scene = Scene(sprites, seed=seed, people=people, width=WIDTH, height=HEIGHT, duration_s=LOOP_S)
    encoded = EncodedScene(scene, folder / f"scene-{seed}.mp4", folder / f"scene-{seed}.h264")
    frames = SyntheticSource(scene, name="scene", stream_start_ms=1, fps=FPS).frames()
    encode_video((frame.image for frame in frames), encoded.clip, FPS, as_camera=True)
    encoded.stream.write_bytes(b"".join(_annex_b(encoded.clip)))
    return encoded


def as_camera_stream(clip: Path, folder: Path) -> tuple[Path, Path]:
    """Encode a real clip like a camera, 640×360 px at 15 fps. Return it as MP4 and as raw H.264."""
    mp4, stream = folder / f"{clip.stem}.mp4", folder / f"{clip.stem}.h264"
    encode_video(resized(clip, FPS, (WIDTH, HEIGHT)), mp4, FPS, as_camera=True)
    stream.write_bytes(b"".join(_annex_b(mp4)))
    return mp4, stream


def resized(clip: Path, fps: float, size: tuple[int, int]) -> Iterator[U8]:
    """Yield the frames of a clip at another rate and size (width, height)."""
    rate, count = frame_rate(clip), 0
    for index, image in enumerate(clip_frames(clip, every=1)):
        while count / fps <= index / rate:
            yield cv2.resize(image, size, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
            count += 1


def moving_faces(clips: Path, weights: Path) -> list[list[U8]]:
    """Return the tile images of `MAX_FACES` moving faces: the people in the clips and their mirror images.

    Faces are repeated with a time offset if there are fewer.
    """
    people = [tile for name in _GRID_CLIPS for tile in _face_tiles(clips / f"{name}.mp4", weights)]
    everyone = [*people, *([np.ascontiguousarray(image[:, ::-1]) for image in tile] for tile in people)]
    shifted = chain.from_iterable(
        (tile[shift % len(tile) :] + tile[: shift % len(tile)] for tile in everyone) for shift in range(0, 300, 7)
    )
    return list(islice(shifted, MAX_FACES))


def _face_tiles(clip: Path, weights: Path) -> list[list[U8]]:
    """Return the region around each face of the first frame over time, forwards and then backwards."""
    images = list(islice(clip_frames(clip, every=1), _TILE_FRAMES))
    detector = YuNetDetector(weights, input_size_px=max(images[0].shape), min_confidence=0.7)
    width, height = _TILE_PX
    tiles = []
    for x1, y1, x2, y2 in detector.detect(images[0]).xyxy.tolist():
        tall = _TILE_SCALE * max(x2 - x1, y2 - y1)
        size, centre = (round(tall * width / height), round(tall)), ((x1 + x2) / 2, (y1 + y2) / 2)
        tile = [cv2.resize(cv2.getRectSubPix(image, size, centre), _TILE_PX).astype(np.uint8) for image in images]
        tiles.append([*tile, *tile[::-1]])
    return tiles


def face_grid(tiles: Sequence[Sequence[U8]], index: int) -> U8:
    """Arrange frame `index` of all tiles in a grid, uint8 (720, 1280, 3) BGR."""
    width, height = _TILE_PX
    image = np.full((_ROWS * height, _COLUMNS * width, 3), _GRAY, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, _COLUMNS)
        rows = slice(row * height, (row + 1) * height)
        image[rows, column * width : (column + 1) * width] = tile[index % len(tile)]
    return image


def frame_rate(clip: Path) -> float:
    """Return the frame rate of a clip in frames per second."""
    with av.open(str(clip)) as container:
        rate = container.streams.video[0].average_rate
    assert rate is not None
    return float(rate)


def encode_video(images: Iterable[U8], target: Path, fps: int, *, as_camera: bool) -> None:
    """Write images as H.264 in MP4; with `as_camera` one slice per frame and no B-frames."""
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
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _annex_b(clip: Path) -> Iterator[bytes]:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        convert = BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            yield from (bytes(part) for part in convert.filter(packet))


def repeat_clip(clip: Path, times: int, target: Path) -> float:
    """Write a clip `times` times in succession, without re-encoding. Return its frame rate."""
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


def labels_of_run(scene: EncodedScene, weights: Path) -> list[tuple[str, ...]]:
    """Return the labels of `fer-stream run` for every frame of a loop, per face from left to right.

    Of two loops the second is used, because the service has analysed earlier loops as well.
    """
    twice = scene.clip.with_suffix(".twice.mp4")
    repeat_clip(scene.clip, 2, twice)
    frames = analyze(twice, _settings(weights)).frames[scene.frames :]
    return [
        tuple(face.label for face in sorted(frame.faces, key=lambda face: float(face.xyxy[0]))) for frame in frames
    ]


def _settings(weights: Path) -> FileSettings:
    return FileSettings(detector=DetectorSettings(type="yunet", weights=weights))
