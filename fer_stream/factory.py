"""Settings → objects. The only place that imports adapters, and only when they are asked for."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream import model_files
from fer_stream.capture.discovery import is_image
from fer_stream.capture.source import FrameSource, Sampler
from fer_stream.classify.backends import Runtime, available_backends, cpu_flags, select_backend
from fer_stream.classify.model_card import listed_files
from fer_stream.config import DetectorSettings, FileSettings, ModelSettings, SourceSettings
from fer_stream.errors import WeightsError
from fer_stream.faces.bytetrack import ByteTrack
from fer_stream.faces.classification_sampler import ClassificationSampler
from fer_stream.faces.crop import crop_geometry
from fer_stream.faces.detection_scheduler import DetectionScheduler
from fer_stream.faces.extractor import FaceExtractor
from fer_stream.faces.identity import IdentityAssigner, IdentityTracker, NoTracking
from fer_stream.metrics import Metrics

if TYPE_CHECKING:
    from fer_stream.capture.camera import LiveSource
    from fer_stream.classify.classifier import EmotionClassifier
    from fer_stream.faces.detector import FaceDetector

# What is assumed of a source that does not tell its frame rate.
DEFAULT_FPS = 25.0

REPORTED_PACKAGES = (
    "fer-stream",
    "ai-edge-litert",
    "av",
    "numpy",
    "onnxruntime",
    "opencv-python",
    "openvino",
    "tensorflow",
    "trackers",
)

_YUNET = ("yunet-2023mar", "yunet-2026may")


def open_file(path: Path, *, name: str, stream_start_ms: int, fps: float | None, threads: int) -> FrameSource:
    """A video file or a still image. Raises a `SourceError` where it cannot be read."""
    if is_image(path):
        from fer_stream.capture.image import ImageSource

        return ImageSource(path, name=name, stream_start_ms=stream_start_ms)
    from fer_stream.capture.file import VideoFileSource

    return VideoFileSource(path, name=name, stream_start_ms=stream_start_ms, sampler=Sampler(fps), threads=threads)


def make_detector(settings: DetectorSettings, *, threads: int = 1) -> FaceDetector:
    """The detector that the settings name. `auto` is YuNet where its weights are at hand, else BlazeFace."""
    if settings.type == "blazeface":
        return _blazeface(settings, threads)
    found = settings.weights or next(filter(None, map(model_files.find, _YUNET)), None)
    if found:
        from fer_stream.faces.yunet import YuNetDetector

        return YuNetDetector(
            found,
            input_size_px=settings.input_size_px,
            min_confidence=settings.min_confidence,
            threads=threads,
        )
    if settings.type == "yunet":
        raise WeightsError(
            "The weights of YuNet are not here: fetch them with `fer-stream models pull`, name a local file with "
            "--weights (detector.weights), or let BlazeFace look (--detector auto)."
        )
    return _blazeface(settings, threads)


def make_classifier(settings: ModelSettings, *, threads: int = 1) -> EmotionClassifier:
    """The classifier that the settings name, on the runtime of `runtime_of`."""
    model_dir, backend = _model_dir(settings), backend_for(settings)
    if backend == "keras":
        from fer_stream.classify.keras import KerasClassifier

        return KerasClassifier(model_dir, batch_size=settings.batch_size)
    if backend == "onnx":
        from fer_stream.classify.onnx import OnnxClassifier

        return OnnxClassifier(model_dir, threads=threads)
    if backend == "openvino":
        from fer_stream.classify.openvino import OpenVinoClassifier

        return OpenVinoClassifier(model_dir, threads=threads)
    from fer_stream.classify.litert import LiteRTClassifier

    return LiteRTClassifier(model_dir, threads=threads)


def backend_for(settings: ModelSettings) -> Runtime:
    """What classifies. `auto` is Keras where there is a GPU that it can use, else the fastest on this CPU."""
    if settings.backend != "auto":
        return settings.backend
    files, installed = listed_files(_model_dir(settings)), versions().keys()
    if "keras" in available_backends(files, installed) and _has_gpu():
        return "keras"
    return select_backend(files, cpu_flags(), installed)


def available_backends_for(settings: ModelSettings) -> list[Runtime]:
    """What is installed and can run the model that the settings name."""
    return available_backends(listed_files(_model_dir(settings)), versions().keys())


def make_extractor(
    source: FrameSource,
    detector: FaceDetector,
    settings: FileSettings | SourceSettings,
    metrics: Metrics,
    *,
    classify_interval_s: float,
) -> FaceExtractor:
    """What turns the frames of `source` into crops of known persons, of each one every `classify_every_s`."""
    geometry = crop_geometry(detector.name)
    between = DetectionScheduler(interval_s=settings.detector.interval_s, min_confidence=settings.tracker.new_track_confidence)
    return FaceExtractor(
        detector,
        _make_identity(source, settings),
        geometry,
        settings.quality,
        metrics,
        scheduler=between,
        sampler=ClassificationSampler(classify_interval_s),
    )


def open_camera(name: str, settings: SourceSettings, *, last_epoch_ms: int, metrics: Metrics) -> LiveSource:
    """A camera. Raises `UnreadableSource` where its address is none."""
    from fer_stream.capture.camera import LiveSource

    url = settings.url.get_secret_value()
    return LiveSource(url, name=name, metrics=metrics, settings=settings, last_epoch_ms=last_epoch_ms)


def effective_fps(source: FrameSource, fps: float | None) -> float:
    """How many frames a second of `source` are looked at, where `fps` is the limit."""
    return min(filter(None, (source.info.fps, fps)), default=DEFAULT_FPS)


def versions() -> dict[str, str]:
    """The versions of everything installed that has a say in a result: most containers have no TensorFlow."""
    installed = {package: next(iter(metadata.distributions(name=package)), None) for package in REPORTED_PACKAGES}
    return {package: found.version for package, found in installed.items() if found}


def _blazeface(settings: DetectorSettings, threads: int) -> FaceDetector:
    from fer_stream.faces.blazeface import BlazeFaceDetector

    return BlazeFaceDetector(settings.weights, min_confidence=settings.min_confidence, threads=threads)


def _make_identity(source: FrameSource, settings: FileSettings | SourceSettings) -> IdentityAssigner:
    if source.info.kind == "image":
        return NoTracking()
    rate = effective_fps(source, settings.fps)
    tracker = settings.tracker.at_rate(rate, settings.detector.interval_s)
    return IdentityTracker(lambda: ByteTrack(tracker), tracker)


def _model_dir(settings: ModelSettings) -> Path:
    return settings.path or model_files.shipped_model_dir(settings.size)


def _has_gpu() -> bool:
    """Does TensorFlow see a GPU? It is loaded (4 s, 400 MB) only where the machine has one at all."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
