"""Quality of face crops: a reason for each defect, and none for a good face."""

from __future__ import annotations

import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fer_stream.classify.classifier import apply_agreement
from fer_stream.config.settings import QualitySettings
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.crop import assess, crop_face, head_rotation, sharpness, visible_fraction
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, U8, Quality

SETTINGS = QualitySettings()
FRONTAL = np.array([(-15, 0), (15, 0), (0, 18), (-12, 32), (12, 32)], np.float32)
SHAPE = (480, 640, 3)


def texture(contrast: float = 40, brightness: float = 128) -> U8:
    """Return a crop as sharp as a face: noise without its finest detail."""
    noise = np.random.default_rng(3).normal(0, 1, (48, 48))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2)
    gray: U8 = np.clip(brightness + contrast * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return gray


def box(x: float, y: float, width: float, height: float) -> F32:
    return np.array((x, y, x + width, y + height), np.float32)


GOOD_BOX = box(200, 100, 90, 120)
GOOD_CROP = texture()


def assess_face(xyxy: F32 = GOOD_BOX, landmarks: F32 | None = FRONTAL, crop: U8 = GOOD_CROP) -> Quality:
    return assess(SHAPE, xyxy, landmarks, crop, SETTINGS)


def blurred(crop: U8, sigma: float) -> U8:
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), sigma), np.uint8)


def rotated_landmarks(yaw_deg: float, roll_deg: float = 0) -> F32:
    """Return the landmarks of a flat face with a protruding nose, rotated by yaw, then by roll."""
    points = np.column_stack((FRONTAL, [0, 0, 15, 0, 0]))
    yaw, roll = math.radians(yaw_deg), math.radians(roll_deg)
    x = points[:, 0] * math.cos(yaw) + points[:, 2] * math.sin(yaw)
    y = points[:, 1]
    rotated = (x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll))
    return np.column_stack(rotated).astype(np.float32)


def test_a_good_face_is_ok() -> None:
    assert assess_face().reason == "ok"
    assert assess_face().score == pytest.approx(1, abs=0.01)


def test_a_face_without_landmarks_is_assessed_by_the_other_properties() -> None:
    assert assess_face(landmarks=None) == Quality(1.0, "ok")
    assert assess_face(box(200, 100, 9, 12), landmarks=None).reason == "small"


@pytest.mark.parametrize(
    ("reason", "xyxy", "landmarks", "crop"),
    [
        ("small", box(200, 100, 12, 16), FRONTAL, GOOD_CROP),
        ("small", box(200, 100, 90, 5), FRONTAL, GOOD_CROP),
        ("truncated", box(-60, 100, 90, 120), FRONTAL, GOOD_CROP),
        ("truncated", box(200, 440, 90, 120), FRONTAL, GOOD_CROP),
        ("truncated", box(900, 900, 90, 120), FRONTAL, GOOD_CROP),
        ("off_frontal", GOOD_BOX, rotated_landmarks(75), GOOD_CROP),
        ("blurred", GOOD_BOX, FRONTAL, blurred(GOOD_CROP, 4)),
        ("blurred", GOOD_BOX, FRONTAL, np.full((48, 48), 90, np.uint8)),
    ],
)
def test_each_defect_has_its_reason(reason: str, xyxy: F32, landmarks: F32, crop: U8) -> None:
    quality = assess_face(xyxy, landmarks, crop)
    assert quality.reason == reason
    assert quality.score < 0.5


def test_the_reason_is_the_worst_defect() -> None:
    assert assess_face(xyxy=box(-7, 100, 14, 18), landmarks=rotated_landmarks(75)).reason == "off_frontal"
    assert assess_face(xyxy=box(-2, 100, 4, 6), landmarks=rotated_landmarks(50)).reason == "small"


@pytest.mark.parametrize("yaw_deg", [0, 20, 40, 60, 80])
@pytest.mark.parametrize("roll_deg", [-90, -30, 0, 45, 180])
def test_head_rotation_is_yaw_independent_of_roll(yaw_deg: float, roll_deg: float) -> None:
    assert head_rotation(rotated_landmarks(yaw_deg, roll_deg)) == pytest.approx(yaw_deg / 90, abs=0.02)
    assert head_rotation(rotated_landmarks(-yaw_deg, roll_deg)) == pytest.approx(yaw_deg / 90, abs=0.02)


@pytest.mark.parametrize("nose_y", [-4.0, 34.0])
def test_looking_up_or_down_is_head_rotation(nose_y: float) -> None:
    landmarks = FRONTAL.copy()
    landmarks[2, 1] = nose_y
    assert head_rotation(landmarks) > 0.45


def test_a_profile_with_swapped_eyes_is_full_rotation() -> None:
    assert head_rotation(rotated_landmarks(100)) == 1


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 4])
def test_blur_lowers_sharpness(sigma: float) -> None:
    assert sharpness(blurred(GOOD_CROP, sigma)) < 0.9 * sharpness(GOOD_CROP)


def test_sharpness_is_independent_of_brightness_and_contrast() -> None:
    dark = texture(contrast=12, brightness=40)
    assert sharpness(dark) == pytest.approx(sharpness(GOOD_CROP), rel=0.1)


@pytest.mark.parametrize(
    ("xyxy", "fraction"),
    [
        (box(0, 0, 640, 480), 1),
        (box(-50, 0, 100, 100), 0.5),
        (box(590, -50, 100, 100), 0.25),
        (box(100, 400, 100, 100), 0.6),
        (box(100, 430, 100, 100), 0),
        (box(700, 0, 10, 10), 0),
        (box(10, 10, 0, 5), 0),
        (box(10, 10, -5, -5), 0),
    ],
)
def test_visible_fraction_counts_a_missing_bottom_twice(xyxy: F32, fraction: float) -> None:
    assert visible_fraction(SHAPE, xyxy) == pytest.approx(fraction)


@given(
    corners=st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 4),
    landmarks=st.none() | arrays(np.float32, (5, 2), elements=st.floats(width=32)),
    gray=st.integers(0, 255),
)
def test_any_face_gets_a_score_and_its_reason(corners: tuple[float, ...], landmarks: F32 | None, gray: int) -> None:
    crop = np.full((48, 48), gray, np.uint8) if gray % 2 else texture(brightness=gray)
    quality = assess_face(np.array(corners, np.float32), landmarks, crop)
    assert 0 <= quality.score <= 1
    assert quality.ok == (quality.score >= 0.5)


@given(width=st.floats(1, 300), height=st.floats(1, 300), factor=st.floats(0.05, 1))
def test_a_smaller_face_has_no_higher_score(width: float, height: float, factor: float) -> None:
    larger, smaller = (
        assess_face(box(10, 10, width, height)),
        assess_face(box(10, 10, width * factor, height * factor)),
    )
    assert smaller.score <= larger.score


@given(x=st.floats(0, 700), step=st.floats(0, 200))
def test_a_face_further_outside_has_no_higher_score(x: float, step: float) -> None:
    assert assess_face(box(x + step, 100, 90, 120)).score <= assess_face(box(x, 100, 90, 120)).score + 1e-6


@given(yaw_deg=st.floats(0, 89), step=st.floats(0, 45))
def test_a_face_rotated_further_has_no_higher_score(yaw_deg: float, step: float) -> None:
    further = rotated_landmarks(min(89, yaw_deg + step))
    assert assess_face(landmarks=further).score <= assess_face(landmarks=rotated_landmarks(yaw_deg)).score + 1e-4


@pytest.fixture(scope="module")
def detectors(yunet_weights: Path) -> dict[str, FaceDetector]:
    return {
        "yunet": YuNetDetector(yunet_weights, input_size_px=320, min_confidence=0.6),
        "blazeface": BlazeFaceDetector(None, min_confidence=0.6),
    }


@pytest.mark.parametrize("detector", ["yunet", "blazeface"])
@pytest.mark.parametrize("clip", ["one_face_smile", "leave_and_return", "one_face_crying"])
def test_a_real_face_in_front_of_a_camera_is_ok(
    detector: str, clip: str, detectors: dict[str, FaceDetector], clips: Path
) -> None:
    reasons = reasons_in(detectors[detector], clips / f"{clip}.mp4", step=6)
    assert len(reasons) >= 10
    assert reasons.count("ok") >= 0.95 * len(reasons)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_good_face_with_low_agreement_is_unclear(agreement: float, min_agreement: float) -> None:
    quality = apply_agreement(Quality(0.8, "ok"), agreement, min_agreement)
    if agreement >= min_agreement:
        assert quality == Quality(0.8, "ok")
    else:
        assert quality.reason == "unclear"
        assert 0 <= quality.score < 0.5


def test_low_agreement_does_not_replace_another_reason() -> None:
    small = Quality(0.3, "small")
    assert apply_agreement(small, 0.0, 0.5) is small


def test_small_real_faces_are_not_ok(detectors: dict[str, FaceDetector], clips: Path) -> None:
    reasons = reasons_in(detectors["yunet"], clips / "small_faces.mp4", step=6)
    assert len(reasons) >= 10
    assert set(reasons) <= {"small", "blurred"}


def reasons_in(detector: FaceDetector, clip: Path, *, step: int) -> list[str]:
    """Return the reason of every face in every `step`-th frame."""
    reasons: list[str] = []
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % step:
                continue
            image = frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
            found = detector.detect(image)
            assert found.landmarks is not None
            for xyxy, landmarks in zip(found.xyxy, found.landmarks, strict=True):
                crop = crop_face(image, xyxy, detector.spec.crop_geometry)
                reasons.append(assess(image.shape, xyxy, landmarks, crop, SETTINGS).reason)
    return reasons
