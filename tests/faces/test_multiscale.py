"""Small faces in large frames: input sizes, tiles, and faces that are found once."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_stream import FileSettings, analyze
from fer_stream.config.settings import DetectorSettings, OutputSettings
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.detector import FaceNetwork, InputSpec
from fer_stream.faces.multiscale import MultiScaleDetector, ScaleSettings, input_sizes, smallest_face_px
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import U8

FREE = InputSpec(320, 1280, 1280, 16_384, 16.0, any_size=True)
FIXED = InputSpec(192, 192, 192, 3072, 20.0)
VIDEO, STILL = (ScaleSettings(None, 20.0, still=still) for still in (False, True))


@pytest.fixture
def yunet(yunet_weights: Path) -> YuNetDetector:
    return YuNetDetector(yunet_weights, min_confidence=0.6)


@pytest.fixture(params=["yunet", "blazeface"])
def network(request: pytest.FixtureRequest) -> FaceNetwork:
    if request.param == "blazeface":
        return BlazeFaceDetector(min_confidence=0.6)
    found: FaceNetwork = request.getfixturevalue("yunet")
    return found


@pytest.fixture(scope="module")
def head(clips: Path) -> U8:
    """A head whose face is 0.42 of the width, uint8 (360, 360, 3) BGR."""
    ok, frame = cv2.VideoCapture(str(clips / "one_face_smile.mp4")).read()
    assert ok
    return cv2.getRectSubPix(frame, (360, 360), (318, 180)).astype(np.uint8, copy=False)


def group(head: U8, width: int, height: int, side: int, count: int) -> U8:
    """Return an image with `count` heads of `side` px in a grid, uint8 (height, width, 3)."""
    image = np.full((height, width, 3), (90, 110, 96), np.uint8)
    small = cv2.resize(head, (side, side), interpolation=cv2.INTER_AREA)
    columns = width // (side + 40)
    for index in range(count):
        row, column = divmod(index, columns)
        left, top = 20 + column * (side + 40), 20 + row * (side + 40)
        image[top : top + side, left : left + side] = small
    return image


@pytest.mark.parametrize(
    ("long_side", "video", "still"),
    [
        (48, [320], [320]),
        (640, [320], [320, 512]),
        (960, [320], [320, 768]),
        (1280, [320, 512], [320, 1024]),
        (1920, [320, 768], [320, 1280]),
        (3840, [320, 1280], [320, 1280, 3072]),
        (6000, [320, 1280], [320, 1280, 4800]),
    ],
)
def test_the_input_grows_with_the_frame(long_side: int, video: list[int], still: list[int]) -> None:
    assert input_sizes(long_side, FREE, VIDEO) == video
    assert input_sizes(long_side, FREE, STILL) == still


def test_a_network_with_a_fixed_input_examines_still_images_in_tiles_and_video_whole() -> None:
    assert input_sizes(3840, FIXED, VIDEO) == [192]
    assert input_sizes(640, FIXED, STILL) == [192, 640]
    assert input_sizes(6000, FIXED, STILL) == [192, 768, 3072]


@pytest.mark.parametrize("still", [False, True])
def test_an_explicit_size_is_the_only_one(still: bool) -> None:
    explicit = ScaleSettings(640, 20.0, still=still)
    assert input_sizes(1920, FREE, explicit) == [640]
    assert input_sizes(1920, FIXED, explicit) == [192, 640]


def test_larger_minimum_faces_need_a_smaller_input() -> None:
    assert input_sizes(3840, FREE, ScaleSettings(None, 60.0, still=False)) == [320, 512]
    assert input_sizes(3840, FREE, ScaleSettings(None, 0.0, still=True))[-1] == 3840


@pytest.mark.parametrize(("long_side", "video", "still"), [(640, 40, 25), (1920, 50, 30), (3840, 60, 25)])
def test_smallest_face(long_side: int, video: float, still: float) -> None:
    assert smallest_face_px(long_side, FREE, VIDEO) == pytest.approx(video)
    assert smallest_face_px(long_side, FREE, STILL) == pytest.approx(still)


@pytest.mark.parametrize("settings", [VIDEO, ScaleSettings(320, 20.0, still=True)])
def test_a_frame_of_one_pass_gives_the_faces_of_the_network(
    yunet: YuNetDetector, head: U8, settings: ScaleSettings
) -> None:
    image = group(head, 640, 360, 200, 2)
    found, expected = MultiScaleDetector(yunet, settings).detect(image), yunet.detect(image)
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


@pytest.mark.parametrize("side", [100, 240, 900])
def test_each_face_of_a_large_still_image_is_found_once(network: FaceNetwork, head: U8, side: int) -> None:
    image = group(head, 2600, 1300, side, 2)
    found = MultiScaleDetector(network, STILL).detect(image)
    assert len(found) == 2
    assert found.landmarks is not None
    assert (np.diff(found.confidence) <= 0).all()
    centres = np.sort((found.xyxy[:, 0] + found.xyxy[:, 2]) / 2)
    np.testing.assert_allclose(centres, [20 + side / 2, 60 + 1.5 * side], atol=0.08 * side)


def test_a_face_on_the_edge_of_tiles_is_found_once_and_complete(yunet: YuNetDetector, head: U8) -> None:
    detector, small = MultiScaleDetector(yunet, STILL), cv2.resize(head, (120, 120), interpolation=cv2.INTER_AREA)
    for left in range(900, 1500, 60):
        image = np.full((400, 2600, 3), 100, np.uint8)
        image[100:220, left : left + 120] = small
        found = detector.detect(image)
        assert len(found) == 1, left
        assert found.xyxy[0, 2] - found.xyxy[0, 0] > 35


@pytest.mark.parametrize("shape", [(1, 1), (900, 9000), (12000, 400), (3, 5000)])
def test_an_image_of_any_shape_without_faces_is_accepted(network: FaceNetwork, shape: tuple[int, int]) -> None:
    assert len(MultiScaleDetector(network, STILL).detect(np.full((*shape, 3), 90, np.uint8))) == 0


def test_everyone_in_a_group_photograph_is_found(yunet_weights: Path, head: U8, tmp_path: Path) -> None:
    path = tmp_path / "group.jpg"
    cv2.imwrite(str(path), group(head, 6000, 4000, 360, 40))
    settings = FileSettings(detector=DetectorSettings(type="yunet", weights=yunet_weights))
    assert len(analyze(path, settings).timelines) == 40


def test_small_faces_of_a_4k_video_are_found(yunet_weights: Path, head: U8, tmp_path: Path) -> None:
    path = tmp_path / "wide.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (3840, 2160))
    for _ in range(4):
        writer.write(group(head, 3840, 2160, 229, 12))
    writer.release()
    settings = FileSettings(
        detector=DetectorSettings(type="yunet", weights=yunet_weights), outputs=OutputSettings(video=False)
    )
    assert len(analyze(path, settings).timelines) == 12
