"""Contract of every detector, and properties of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from fer_stream.errors import WeightsError
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, U8, Detections

ReadFrame = Callable[[str, int], U8]
MIN_CONFIDENCE = 0.6


@pytest.fixture(scope="module")
def yunet(yunet_weights: Path) -> YuNetDetector:
    return YuNetDetector(yunet_weights, input_size_px=320, min_confidence=MIN_CONFIDENCE)


@pytest.fixture(scope="module")
def blazeface() -> BlazeFaceDetector:
    return BlazeFaceDetector(min_confidence=MIN_CONFIDENCE)


@pytest.fixture(params=["yunet", "blazeface"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    found: FaceDetector = request.getfixturevalue(request.param)
    return found


def check(found: Detections, count: int) -> None:
    """Assert shapes, dtypes and order documented in `Detections` and `FaceDetector`."""
    assert len(found) == count
    assert found.landmarks is not None
    assert found.xyxy.shape == (count, 4)
    assert found.confidence.shape == (count,)
    assert found.landmarks.shape == (count, 5, 2)
    for array in (found.xyxy, found.confidence, found.landmarks):
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
    assert ((found.confidence >= MIN_CONFIDENCE) & (found.confidence <= 1)).all()
    assert (np.diff(found.confidence) <= 0).all()


def by_column(found: Detections) -> tuple[F32, F32]:
    """Return boxes and landmarks, sorted from left to right."""
    assert found.landmarks is not None
    order = np.argsort(found.xyxy[:, 0])
    return found.xyxy[order], found.landmarks[order]


# --- the contract ---


def test_finds_three_faces_at_their_positions(detector: FaceDetector, read_frame: ReadFrame) -> None:
    found = detector.detect(read_frame("three_faces", 20))

    check(found, 3)
    boxes, _ = by_column(found)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(centres, [[83, 114], [228, 103], [372, 133]], atol=8)


def test_landmarks_are_in_the_documented_order(detector: FaceDetector, read_frame: ReadFrame) -> None:
    boxes, landmarks = by_column(detector.detect(read_frame("three_faces", 20)))

    right_eye, left_eye, nose, right_mouth, left_mouth = np.moveaxis(landmarks, 1, 0)
    assert (right_eye[:, 0] < left_eye[:, 0]).all(), "the person's right is on the left of the image"
    assert (right_mouth[:, 0] <= left_mouth[:, 0]).all()
    for lower, upper in ((nose, right_eye), (nose, left_eye), (right_mouth, nose), (left_mouth, nose)):
        assert (lower[:, 1] > upper[:, 1]).all()
    assert (landmarks >= boxes[:, None, :2]).all()
    assert (landmarks <= boxes[:, None, 2:]).all()


@pytest.mark.parametrize("index", [0, 30, 60, 90])
def test_finds_no_face_in_a_scene_without_people(detector: FaceDetector, read_frame: ReadFrame, index: int) -> None:
    check(detector.detect(read_frame("no_face", index)), 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (2, 3), (33, 47), (1080, 1920)])
@pytest.mark.parametrize("level", [0, 127, 255])
def test_accepts_a_uniform_image_of_any_size(detector: FaceDetector, size: tuple[int, int], level: int) -> None:
    check(detector.detect(np.full((*size, 3), level, np.uint8)), 0)


def test_accepts_noise(detector: FaceDetector) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (101, 203, 3), dtype=np.uint8)
    found = detector.detect(noise)
    check(found, len(found))


def test_finds_the_same_faces_in_an_image_scaled_to_8k(detector: FaceDetector, read_frame: ReadFrame) -> None:
    small = read_frame("three_faces", 20)
    large = cv2.resize(small, (7680, 4320), interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)

    found = detector.detect(large)

    check(found, 3)
    np.testing.assert_allclose(by_column(found)[0] / 16, by_column(detector.detect(small))[0], atol=5)


@pytest.mark.parametrize(("right", "bottom"), [(479, 269), (471, 255), (433, 201)])
def test_odd_image_sizes_do_not_shift_boxes(
    detector: FaceDetector, read_frame: ReadFrame, right: int, bottom: int
) -> None:
    whole = read_frame("three_faces", 20)

    found = detector.detect(whole[:bottom, :right])

    check(found, 3)
    np.testing.assert_allclose(by_column(found)[0], by_column(detector.detect(whole))[0], atol=6)


def test_finds_faces_in_grayscale(detector: FaceDetector, read_frame: ReadFrame) -> None:
    gray = cv2.cvtColor(read_frame("three_faces", 20), cv2.COLOR_BGR2GRAY)
    check(detector.detect(np.repeat(gray[..., None], 3, axis=2).astype(np.uint8, copy=False)), 3)


def test_input_is_bgr(detector: FaceDetector, read_frame: ReadFrame) -> None:
    image = read_frame("three_faces", 20)
    swapped = np.ascontiguousarray(image[..., ::-1])
    assert detector.detect(image).confidence.sum() > detector.detect(swapped).confidence.sum()


def test_detection_is_deterministic_and_does_not_modify_the_image(
    detector: FaceDetector, read_frame: ReadFrame
) -> None:
    image = read_frame("two_faces", 10)
    before = image.copy()

    first = detector.detect(image)
    detector.detect(read_frame("one_face_smile", 0))
    second = detector.detect(image)

    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(first.xyxy, second.xyxy)
    np.testing.assert_array_equal(first.confidence, second.confidence)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:8f23\nsize 232589\n", "Git-LFS pointer"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "web page"),
        (b"", "empty"),
        (b"\x08\x07 hardly a model" * 50, "damaged"),
    ],
)
@pytest.mark.parametrize("kind", ["yunet", "blazeface"])
def test_rejects_a_file_that_is_not_a_model(tmp_path: Path, kind: str, content: bytes, message: str) -> None:
    path = tmp_path / "detector.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        _load(kind, path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["yunet", "blazeface"])
def test_missing_weights_are_an_error_with_their_path(tmp_path: Path, kind: str) -> None:
    with pytest.raises(WeightsError, match=r"No weights file at .*absent\.bin.*models pull"):
        _load(kind, tmp_path / "absent.bin")


def _load(kind: str, path: Path) -> FaceDetector:
    if kind == "yunet":
        return YuNetDetector(path, input_size_px=320, min_confidence=MIN_CONFIDENCE)
    return BlazeFaceDetector(path, min_confidence=MIN_CONFIDENCE)


# --- YuNet ---


@pytest.fixture(params=["2023mar", "2026may"])
def published(request: pytest.FixtureRequest, yunet_weights: Path) -> Path:
    return yunet_weights.with_name(f"face_detection_yunet_{request.param}.onnx")


@pytest.mark.parametrize(
    ("clip", "index"), [("three_faces", 0), ("two_faces", 30), ("small_faces", 20), ("one_face_crying", 100)]
)
def test_yunet_finds_the_faces_of_opencv(published: Path, read_frame: ReadFrame, clip: str, index: int) -> None:
    image = read_frame(clip, index)
    height, width = image.shape[:2]
    reference = cv2.FaceDetectorYN.create(str(published), "", (width, height), MIN_CONFIDENCE, 0.3, 5000)
    expected = np.asarray(reference.detect(image)[1], np.float32)
    expected = expected[np.argsort(-expected[:, 14], kind="stable")]

    found = YuNetDetector(published, input_size_px=width, min_confidence=MIN_CONFIDENCE).detect(image)

    check(found, len(expected))
    assert found.landmarks is not None
    np.testing.assert_allclose(found.xyxy[:, :2], expected[:, :2], atol=0.05)
    np.testing.assert_allclose(found.xyxy[:, 2:] - found.xyxy[:, :2], expected[:, 2:4], atol=0.05)
    np.testing.assert_allclose(found.landmarks.reshape(-1, 10), expected[:, 4:14], atol=0.05)
    np.testing.assert_allclose(found.confidence, expected[:, 14], atol=1e-3)


def test_yunet_is_named_after_its_weights(published: Path, tmp_path: Path) -> None:
    assert _load("yunet", published).spec.name == "yunet-" + published.stem.rpartition("_")[2]

    model = onnx.load(published)
    model.doc_string = "trained elsewhere"
    own = tmp_path / "own.onnx"
    onnx.save(model, own)
    assert _load("yunet", own).spec.name == "yunet-" + hashlib.sha256(own.read_bytes()).hexdigest()[:8]


def test_yunet_rejects_a_truncated_file(published: Path, tmp_path: Path) -> None:
    part = tmp_path / published.name
    part.write_bytes(published.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="damaged or not an ONNX file"):
        _load("yunet", part)


def test_yunet_rejects_another_network(tmp_path: Path) -> None:
    path = tmp_path / "relu.onnx"
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", tensors[:1], tensors[1:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(WeightsError, match="not a YuNet"):
        _load("yunet", path)


@pytest.mark.parametrize("width", [64, 96, 176])
def test_yunet_finds_the_face_in_a_small_image(yunet: YuNetDetector, read_frame: ReadFrame, width: int) -> None:
    small = cv2.resize(read_frame("one_face_smile", 0), (width, width * 9 // 16), interpolation=cv2.INTER_AREA)
    check(yunet.detect(small.astype(np.uint8, copy=False)), 1)


def test_yunet_finds_more_faces_with_a_larger_input(
    yunet: YuNetDetector, yunet_weights: Path, read_frame: ReadFrame
) -> None:
    images = [read_frame("small_faces", index) for index in range(0, 36, 6)]
    fine = YuNetDetector(yunet_weights, input_size_px=480, min_confidence=MIN_CONFIDENCE)
    assert sum(len(fine.detect(image)) for image in images) > sum(len(yunet.detect(image)) for image in images)


def test_yunet_finds_the_same_faces_with_two_threads(
    yunet: YuNetDetector, yunet_weights: Path, read_frame: ReadFrame
) -> None:
    image = read_frame("three_faces", 20)
    both = YuNetDetector(yunet_weights, input_size_px=320, min_confidence=MIN_CONFIDENCE, threads=2).detect(image)
    np.testing.assert_allclose(both.xyxy, yunet.detect(image).xyxy, atol=0.01)


# --- BlazeFace ---


def test_blazeface_needs_no_download(blazeface: BlazeFaceDetector) -> None:
    assert blazeface.spec.name == "blazeface-full-range"


@pytest.mark.parametrize(("clip", "index"), [("one_face_smile", 0), ("one_face_crying", 100), ("three_faces", 20)])
def test_blazeface_places_eyes_and_nose_like_yunet(
    blazeface: BlazeFaceDetector, yunet: YuNetDetector, read_frame: ReadFrame, clip: str, index: int
) -> None:
    image = read_frame(clip, index)
    boxes, expected = by_column(yunet.detect(image))
    _, landmarks = by_column(blazeface.detect(image))

    error = np.linalg.norm(landmarks[:, :3] - expected[:, :3], axis=2) / (boxes[:, 2:3] - boxes[:, :1])
    assert error.max() < 0.2, "in face widths; swapped eyes would give 0.4 or more"


def test_blazeface_mouth_is_a_single_point(blazeface: BlazeFaceDetector, read_frame: ReadFrame) -> None:
    _, landmarks = by_column(blazeface.detect(read_frame("two_faces", 30)))
    np.testing.assert_array_equal(landmarks[:, 3], landmarks[:, 4])


def test_blazeface_rejects_another_network() -> None:
    classifier = Path(__file__).resolve().parents[2] / "models" / "emotion.int8.tflite"
    with pytest.raises(WeightsError, match="not BlazeFace full-range"):
        _load("blazeface", classifier)
