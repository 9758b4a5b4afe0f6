"""The quality gate: each reason for its own fault, and no reason for a good face."""

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

from fer_stream.config import QualitySettings
from fer_stream.faces.blazeface import BlazeFaceDetector
from fer_stream.faces.crop import crop_face, crop_geometry
from fer_stream.faces.detector import FaceDetector
from fer_stream.faces.quality import apply_agreement, assess, head_rotation, sharpness, visible_fraction
from fer_stream.faces.yunet import YuNetDetector
from fer_stream.records import F32, U8, Quality

SETTINGS = QualitySettings()
FRONTAL = np.array([(-15, 0), (15, 0), (0, 18), (-12, 32), (12, 32)], np.float32)
SHAPE = (480, 640, 3)


def texture(contrast: float = 40, brightness: float = 128) -> U8:
    """A crop as sharp as a face: noise whose finest detail is gone."""
    noise = np.random.default_rng(3).normal(0, 1, (48, 48))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2)
    gray: U8 = np.clip(brightness + contrast * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return gray


def box(x: float, y: float, width: float, height: float) -> F32:
    return np.array((x, y, x + width, y + height), np.float32)


GOOD_BOX = box(200, 100, 90, 120)
GOOD_CROP = texture()


def look(xyxy: F32 = GOOD_BOX, landmarks: F32 | None = FRONTAL, crop: U8 = GOOD_CROP) -> Quality:
    return assess(SHAPE, xyxy, landmarks, crop, SETTINGS)


def blurred(crop: U8, sigma: float) -> U8:
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), sigma), np.uint8)


def turned(yaw_deg: float, roll_deg: float = 0) -> F32:
    """The landmarks of a flat face with a nose before it, seen turned about its vertical axis, then tilted."""
    points = np.column_stack((FRONTAL, [0, 0, 15, 0, 0]))
    yaw, roll = math.radians(yaw_deg), math.radians(roll_deg)
    x = points[:, 0] * math.cos(yaw) + points[:, 2] * math.sin(yaw)
    y = points[:, 1]
    rotated = (x * math.cos(roll) - y * math.sin(roll), x * math.sin(roll) + y * math.cos(roll))
    return np.column_stack(rotated).astype(np.float32)


def test_a_good_face_is_ok() -> None:
    assert look().reason == "ok"
    assert look().score == pytest.approx(1, abs=0.01)


def test_a_face_without_landmarks_is_judged_by_the_rest() -> None:
    assert look(landmarks=None) == Quality(1.0, "ok")
    assert look(box(200, 100, 9, 12), landmarks=None).reason == "small"


@pytest.mark.parametrize(
    ("reason", "xyxy", "landmarks", "crop"),
    [
        ("small", box(200, 100, 12, 16), FRONTAL, GOOD_CROP),
        ("small", box(200, 100, 90, 5), FRONTAL, GOOD_CROP),
        ("truncated", box(-60, 100, 90, 120), FRONTAL, GOOD_CROP),
        ("truncated", box(200, 440, 90, 120), FRONTAL, GOOD_CROP),
        ("truncated", box(900, 900, 90, 120), FRONTAL, GOOD_CROP),
        ("off_frontal", GOOD_BOX, turned(75), GOOD_CROP),
        ("blurred", GOOD_BOX, FRONTAL, blurred(GOOD_CROP, 4)),
        ("blurred", GOOD_BOX, FRONTAL, np.full((48, 48), 90, np.uint8)),
    ],
)
def test_a_fault_has_its_reason(reason: str, xyxy: F32, landmarks: F32, crop: U8) -> None:
    quality = look(xyxy, landmarks, crop)
    assert quality.reason == reason
    assert quality.score < 0.5


def test_the_reason_is_the_worst_fault() -> None:
    assert look(xyxy=box(-7, 100, 14, 18), landmarks=turned(75)).reason == "off_frontal"
    assert look(xyxy=box(-2, 100, 4, 6), landmarks=turned(50)).reason == "small"


@pytest.mark.parametrize("yaw_deg", [0, 20, 40, 60, 80])
@pytest.mark.parametrize("roll_deg", [-90, -30, 0, 45, 180])
def test_turn_is_the_yaw_whatever_the_tilt(yaw_deg: float, roll_deg: float) -> None:
    assert head_rotation(turned(yaw_deg, roll_deg)) == pytest.approx(yaw_deg / 90, abs=0.02)
    assert head_rotation(turned(-yaw_deg, roll_deg)) == pytest.approx(yaw_deg / 90, abs=0.02)


@pytest.mark.parametrize("nose_y", [-4.0, 34.0])
def test_a_face_that_looks_up_or_down_is_turned(nose_y: float) -> None:
    landmarks = FRONTAL.copy()
    landmarks[2, 1] = nose_y
    assert head_rotation(landmarks) > 0.45


def test_a_profile_with_its_eyes_swapped_is_a_full_turn() -> None:
    assert head_rotation(turned(100)) == 1


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 4])
def test_blur_lowers_sharpness(sigma: float) -> None:
    assert sharpness(blurred(GOOD_CROP, sigma)) < 0.9 * sharpness(GOOD_CROP)


def test_sharpness_depends_neither_on_light_nor_on_contrast() -> None:
    dark = texture(contrast=12, brightness=40)
    assert sharpness(dark) == pytest.approx(sharpness(GOOD_CROP), rel=0.1)


@pytest.mark.parametrize(
    ("xyxy", "share"),
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
def test_visible_is_the_share_inside_less_what_is_missing_below(xyxy: F32, share: float) -> None:
    assert visible_fraction(SHAPE, xyxy) == pytest.approx(share)


@given(
    corners=st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 4),
    landmarks=st.none() | arrays(np.float32, (5, 2), elements=st.floats(width=32)),
    gray=st.integers(0, 255),
)
def test_any_face_gets_a_score_and_its_reason(corners: tuple[float, ...], landmarks: F32 | None, gray: int) -> None:
    crop = np.full((48, 48), gray, np.uint8) if gray % 2 else texture(brightness=gray)
    quality = look(np.array(corners, np.float32), landmarks, crop)
    assert 0 <= quality.score <= 1
    assert quality.ok == (quality.score >= 0.5)


@given(width=st.floats(1, 300), height=st.floats(1, 300), factor=st.floats(0.05, 1))
def test_a_smaller_face_is_never_better(width: float, height: float, factor: float) -> None:
    larger, smaller = look(box(10, 10, width, height)), look(box(10, 10, width * factor, height * factor))
    assert smaller.score <= larger.score


@given(x=st.floats(0, 700), step=st.floats(0, 200))
def test_a_face_further_out_is_never_better(x: float, step: float) -> None:
    assert look(box(x + step, 100, 90, 120)).score <= look(box(x, 100, 90, 120)).score + 1e-6


@given(yaw_deg=st.floats(0, 89), step=st.floats(0, 45))
def test_a_face_turned_further_is_never_better(yaw_deg: float, step: float) -> None:
    further = turned(min(89, yaw_deg + step))
    assert look(landmarks=further).score <= look(landmarks=turned(yaw_deg)).score + 1e-4


@pytest.fixture(scope="module")
def detectors(yunet_weights: Path) -> dict[str, FaceDetector]:
    return {
        "yunet": YuNetDetector(yunet_weights, input_size_px=320, min_confidence=0.6),
        "blazeface": BlazeFaceDetector(None, min_confidence=0.6),
    }


@pytest.mark.parametrize("detector", ["yunet", "blazeface"])
@pytest.mark.parametrize("clip", ["one_face_smile", "leave_and_return", "one_face_crying"])
def test_a_real_face_before_a_camera_is_ok(
    detector: str, clip: str, detectors: dict[str, FaceDetector], clips: Path
) -> None:
    reasons = grades(detectors[detector], clips / f"{clip}.mp4", step=6)
    assert len(reasons) >= 10
    assert reasons.count("ok") >= 0.95 * len(reasons)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_fine_face_about_which_few_would_agree_is_unclear(agreement: float, least: float) -> None:
    quality = apply_agreement(Quality(0.8, "ok"), agreement, least)
    if agreement >= least:
        assert quality == Quality(0.8, "ok")
    else:
        assert quality.reason == "unclear"
        assert 0 <= quality.score < 0.5


def test_what_was_wrong_with_a_face_stays_its_reason() -> None:
    small = Quality(0.3, "small")
    assert apply_agreement(small, 0.0, 0.5) is small


def test_small_real_faces_are_not_ok(detectors: dict[str, FaceDetector], clips: Path) -> None:
    reasons = grades(detectors["yunet"], clips / "small_faces.mp4", step=6)
    assert len(reasons) >= 10
    assert set(reasons) <= {"small", "blurred"}


def grades(detector: FaceDetector, clip: Path, *, step: int) -> list[str]:
    """The reason of every face in every `step`-th frame."""
    reasons: list[str] = []
    with av.open(str(clip)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % step:
                continue
            image = frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
            found = detector.detect(image)
            assert found.landmarks is not None
            for xyxy, landmarks in zip(found.xyxy, found.landmarks, strict=True):
                crop = crop_face(image, xyxy, crop_geometry(detector.name))
                reasons.append(assess(image.shape, xyxy, landmarks, crop, SETTINGS).reason)
    return reasons
