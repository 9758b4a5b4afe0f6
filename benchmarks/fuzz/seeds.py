"""Initial inputs of the fuzzer: small complete files and documents, generated here."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from fer_stream.broker.codec import Record, encode
from fer_stream.records import (
    LABELS,
    EndOfStream,
    Face,
    FaceCrop,
    FaceKey,
    FrameHeader,
    Gap,
    LabelledFace,
    LabelledFrame,
    Prediction,
    Quality,
    Segment,
)
from fer_stream.store import schemas

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

_BOX = np.array([10.5, 20, 60.25, 80], np.float32)
_PROBS = np.full(7, 1 / 7, np.float32)
_SIZE = (32, 24)

_VIDEOS = (
    ("a.mp4", "libx264", "yuv420p"), ("a.mp4", "libx265", "yuv420p"), ("a.mov", "mpeg4", "yuv420p"),
    ("a.mov", "png", "rgba"), ("a.mov", "prores_ks", "yuv422p10le"), ("a.mov", "qtrle", "argb"),
    ("a.mkv", "libx264", "yuv420p"), ("a.mkv", "ffv1", "yuv420p10le"), ("a.webm", "libvpx-vp9", "yuv420p"),
    ("a.webm", "libvpx", "yuv420p"), ("a.avi", "mpeg4", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p"),
    ("a.avi", "rawvideo", "bgr24"), ("a.ts", "libx264", "yuv420p"), ("a.ts", "mpeg2video", "yuv420p"),
    ("a.flv", "libx264", "yuv420p"), ("a.flv", "flv", "yuv420p"), ("a.wmv", "msmpeg4v3", "yuv420p"),
    ("a.gif", "gif", "rgb8"), ("a.h264", "libx264", "yuv420p"), ("a.nut", "ffv1", "yuv420p"),
    ("a.y4m", "wrapped_avframe", "yuv420p"),
)  # fmt: skip
_IMAGES = (
    ("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"),
    ("WEBP", "RGBA"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("TIFF", "F"), ("BMP", "RGB"), ("BMP", "P"),
    ("JPEG2000", "RGB"), ("PPM", "RGB"), ("GIF", "P"), ("AVIF", "RGB"),
)  # fmt: skip


def codec() -> Iterator[bytes]:
    """Yield an encoded record of each type."""
    face = Face(FaceKey("door@1767225600000", 1, 12), 0.5, 1.7e9, _BOX, 0.9, Quality(0.9, "ok"))
    records: tuple[Record, ...] = (
        face,
        FaceCrop(face, np.zeros((48, 48), np.uint8)),
        Prediction(face, _PROBS, "emotion-1"),
        FrameHeader("door@1767225600000", 12, 0.5, 1),
        Gap("door@1767225600000", 1.0, 2.0, "stalled"),
        EndOfStream("door@1767225600000", 9.0, 100, 100),
    )
    yield from map(encode, records)


def stored_documents() -> Iterator[bytes]:
    """Yield a stored document of each type."""
    face = LabelledFace(1, _BOX, 0.9, Quality(0.9, "ok"), _PROBS, _PROBS, "happy")
    documents = (
        schemas.frame_document(LabelledFrame("door@1767225600000", 12, 0.5, (face, face))),
        schemas.frame_document(LabelledFrame("door@1767225600000", 13, 0.6, ())),
        schemas.stored_segment(Segment("door@1767225600000", 1, "happy", 1.0, 2.0, 0.8)),
        schemas.stored_gap(Gap("door@1767225600000", 1.0, 2.0, "stalled")),
    )
    yield from (schemas.to_json(document).encode() for document in documents)


def card(sha256: str, weights: str) -> Iterator[bytes]:
    """Yield a model card with all keys."""
    document = {
        "model_id": "emotion-1", "dataset": "FER-2013", "licence": "Apache-2.0", "labels": LABELS,
        "input": {"height_px": 48, "width_px": 48, "channels": 1}, "metrics": {"accuracy": 0.7},
        "files": {weights: sha256},
    }  # fmt: skip
    yield json.dumps(document).encode()


def settings() -> Iterator[bytes]:
    """Yield the shipped settings, and some with secrets, anchors and merges."""
    yield b"F" + (CONFIGS / "file.yaml").read_bytes()
    yield (
        b"Lsources:\n  hall: &hall\n    url: rtsp://viewer:${SECRET}@192.0.2.1/stream\n    fps: 5\n"
        b"    ignore: [[0, 0, 1, 0.5]]\n    overflow: {policy: block}\n  door: {<<: *hall, url: 0, record: yes}\n"
        b"queue: {url: 'rediss://queue.example:6380/0', username: fer, password_file: secret, tls: {ca: ca.pem}}\n"
        b"store: {url: 'redis://:${SECRET}@store.example'}\nrecordings: {dir: ~/out, retention_days: null}\n"
        b"log: {level: '${LEVEL:-info}', format: !!str json}\n"
    )
    yield (
        b"Ldetector: {input_size_px: 0x100, min_confidence: 1e-1}\n"
        b"timeline: {smoothing_s: 1:30, allowed_lateness_s: .inf}\n"
    )


def videos() -> Iterator[bytes]:
    """Yield videos of four frames in all common containers and codecs."""
    with TemporaryDirectory() as folder:
        for name, codec_name, pix_fmt in _VIDEOS:
            path = Path(folder) / name
            _write_video(path, codec_name, pix_fmt)
            yield path.read_bytes()


def _write_video(path: Path, codec_name: str, pix_fmt: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec_name, rate=Fraction(25))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = _SIZE
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if codec_name == "libx265":
            stream.codec_context.options = {"x265-params": "log-level=none:pools=1"}
        if path.suffix == ".mp4":
            stream.set_display_rotation(90, False, False)
        for index in range(4):
            image = np.full((_SIZE[1], _SIZE[0], 3), 60 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def images() -> Iterator[bytes]:
    """Yield a small image in all common formats and modes."""
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation
    image = Image.radial_gradient("L").resize(_SIZE)
    for kind, mode in _IMAGES:
        buffer = io.BytesIO()
        options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
        image.convert("RGB").convert(mode).save(buffer, kind, **options)
        yield buffer.getvalue()
