"""HDR video: PQ and HLG are tone-mapped to the picture that they were made from."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc
from av.video.stream import VideoStream

from fer_stream.api import analyze_with
from fer_stream.capture.file import VideoFileSource
from fer_stream.capture.hdr import RGB_FORMAT, TRANSFERS, ToneMapper, tone_map
from fer_stream.config.settings import DetectorSettings, FileSettings
from fer_stream.files import FileProcessor, FileTask, process_file
from fer_stream.records import F64, U8, Frame

PQ, HLG = int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)
BT2020_MATRIX = 9  # ITU-T H.273, non-constant luminance
BT709_TO_BT2020 = np.array(
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
)  # fmt: skip
FRAMES = 6


def to_hdr(image: U8, transfer: int, white_cd_m2: float) -> F64:
    """Convert BGR of standard range to HDR code values of RGB, 0..1, with white at `white_cd_m2`."""
    light: F64 = white_cd_m2 * (image[..., ::-1] / 255) ** 2.4 @ BT709_TO_BT2020.T
    if transfer == PQ:
        powered = (light / 10_000) ** (2610 / 16384)
        return np.asarray(((0.8359375 + 18.8515625 * powered) / (1 + 18.6875 * powered)) ** 78.84375)
    luminance = light @ np.array([0.2627, 0.6780, 0.0593])
    scene = light / 1000 * np.maximum(luminance[..., None] / 1000, 1e-9) ** (1 / 1.2 - 1)
    logarithmic = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), logarithmic))


@pytest.fixture(scope="module")
def picture(portrait: Path) -> U8:
    image = cv2.imread(str(portrait))
    assert image is not None
    return np.asarray(image, np.uint8)


@pytest.fixture
def make_hdr(tmp_path: Path, picture: U8) -> Callable[..., Path]:
    """Writes a video of the picture as HDR with white at `white_cd_m2`; tagged as `tag` instead of `transfer`."""

    def make(
        transfer: int,
        *,
        name: str = "hdr.mkv",
        codec: str = "libx264",
        pix_fmt: str = "yuv420p10le",
        tag: int | None = None,
        white_cd_m2: float = 100,
    ) -> Path:
        path = tmp_path / name
        coded = np.rint(65535 * to_hdr(picture, transfer, white_cd_m2)).astype(np.uint16)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options={"crf": "10"} if codec == "libx264" else {})
            assert isinstance(stream, VideoStream)
            stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], pix_fmt
            context = stream.codec_context
            context.color_trc = transfer if tag is None else tag
            context.color_primaries, context.colorspace = ColorPrimaries.BT2020, BT2020_MATRIX
            for index in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(coded, format="gbrp16le").reformat(
                    format=pix_fmt, dst_colorspace="BT2020", src_color_range="JPEG", dst_color_range="MPEG"
                )
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return make


def read(path: Path) -> list[Frame]:
    source = VideoFileSource(path, name="clip", stream_start_ms=7)
    frames = list(source.frames())
    source.close()
    return frames


@pytest.mark.parametrize(
    ("transfer", "code", "cd_m2"),
    [(PQ, 0.0, 0), (PQ, 0.58, 203), (PQ, 0.752, 1000), (HLG, 0.0, 0), (HLG, 0.75, 203), (HLG, 1.0, 1000)],
)
def test_reference_levels(transfer: int, code: float, cd_m2: float) -> None:
    """ITU-R BT.2408-7, table 1: HDR reference white is 58 % of PQ, 75 % of HLG and 203 cd/m²."""
    light = TRANSFERS[transfer](np.full((1, 3), code))
    assert light == pytest.approx(np.full((1, 3), cd_m2), rel=0.01, abs=1e-6)


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_tone_mapping_is_monotonic_and_uses_the_full_range(transfer: int) -> None:
    ramp = np.repeat(np.linspace(0, 1, 400)[:, None], 3, axis=1)
    mapped = tone_map(ramp, transfer)
    assert np.diff(mapped[:, 1]).min() >= -1e-6
    assert mapped[0] == pytest.approx(0, abs=1e-3)
    assert mapped[-1] == pytest.approx(1, abs=1e-3)
    assert np.ptp(mapped, axis=1).max() < 0.005, "neutral colours stay neutral"


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_tables_match_the_formula(transfer: int) -> None:
    colours = np.random.default_rng(0).random((64, 64, 3))
    colours[:32] = colours[:32, :, :1]
    coded = (65535 * colours).astype(np.uint16)
    mapped = ToneMapper(transfer).bgr(av.VideoFrame.from_ndarray(coded, format=RGB_FORMAT)).to_ndarray()[..., ::-1]
    error = np.abs(mapped - 255 * tone_map(colours, transfer))
    assert error[:32].max() < 2, "gray"
    assert error.mean() < 1
    assert np.percentile(error, 99) < 6


@pytest.mark.parametrize(
    ("transfer", "name", "codec", "pix_fmt"),
    [
        (PQ, "a.mp4", "libx264", "yuv420p10le"),
        (HLG, "a.ts", "libx264", "yuv420p10le"),
        (HLG, "a.mov", "prores_ks", "yuv422p10le"),
        (PQ, "a.mkv", "libx265", "yuv420p10le"),
        (HLG, "a.mkv", "ffv1", "yuv444p12le"),
        (PQ, "a.mkv", "ffv1", "gbrp10le"),
        (HLG, "a.mp4", "libx264", "yuv420p"),
    ],
)
def test_hdr_looks_like_its_original(
    make_hdr: Callable[..., Path], picture: U8, transfer: int, name: str, codec: str, pix_fmt: str
) -> None:
    frame = read(make_hdr(transfer, name=name, codec=codec, pix_fmt=pix_fmt))[-1]
    assert frame.image.shape == picture.shape
    assert frame.image.flags.c_contiguous
    assert frame.image.mean() / picture.mean() == pytest.approx(1, abs=0.1)
    assert correlation(frame.image, picture) > 0.97
    gray = frame.pixels.gray()
    assert np.abs(gray.astype(int) - cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)).mean() < 4


def correlation(one: U8, other: U8) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_reference_white_keeps_room_for_highlights(make_hdr: Callable[..., Path], picture: U8, transfer: int) -> None:
    frame = read(make_hdr(transfer, white_cd_m2=203))[-1]
    assert 1 < frame.image.mean() / picture.mean() < 1.25
    assert (frame.pixels.gray() > 250).mean() < 0.01, "highlights are not clipped"


def test_untagged_video_is_not_tone_mapped(make_hdr: Callable[..., Path], picture: U8) -> None:
    frame = read(make_hdr(PQ, tag=int(ColorTrc.BT709)))[-1]
    code = 255 * to_hdr(picture, PQ, 100)[..., ::-1]
    assert np.abs(frame.image - code).mean() < 5


@pytest.mark.parametrize("transfer", TRANSFERS)
def test_results_are_those_of_the_original(
    make_hdr: Callable[..., Path], picture: U8, tmp_path: Path, transfer: int
) -> None:
    processor = FileProcessor(FileSettings(detector=DetectorSettings(type="blazeface")), threads=1)
    original = tmp_path / "original.png"
    cv2.imwrite(str(original), picture)
    (expected,) = analyze_with(processor, original).frames[0].faces
    path = make_hdr(transfer)
    process_file(processor, FileTask(path, "hdr", tmp_path))
    for frame in analyze_with(processor, path).frames:
        (face,) = frame.faces
        np.testing.assert_allclose(face.xyxy, expected.xyxy, atol=0.05 * (expected.xyxy[2] - expected.xyxy[0]))

    with av.open(str(tmp_path / "hdr.annotated.mp4")) as container:
        annotated = next(container.decode(video=0))
    assert annotated.color_trc == ColorTrc.BT709
    background = np.s_[300:500, 300:500]  # below the face and its card
    actual, wanted = annotated.to_ndarray(format="bgr24")[background], picture[background]
    assert actual.mean() / wanted.mean() == pytest.approx(1, abs=0.15)
