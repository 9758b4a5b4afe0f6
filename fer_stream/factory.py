"""Settings → objects. The only place that imports adapters, and only when they are asked for."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from fer_stream import model_files as weights
from fer_stream.capture.discovery import is_image
from fer_stream.capture.source import FrameSource, Sampler
from fer_stream.classify.backends import Runtime, choose, cpu_flags, usable
from fer_stream.classify.model_card import listed
from fer_stream.config import DetectorSettings, FileSettings, ModelSettings, SourceSettings
from fer_stream.errors import WeightsError
from fer_stream.faces.bytetrack import ByteTrack
from fer_stream.faces.classification_sampler import Turns
from fer_stream.faces.crop import geometry_of
from fer_stream.faces.detection_scheduler import BetweenLooks
from fer_stream.faces.extractor import FaceFollower
from fer_stream.faces.identity import EverybodyNew, Identifier, Identities
from fer_stream.metrics import Metrics

if TYPE_CHECKING:
    from fer_stream.capture.camera import LiveSource
    from fer_stream.classify.classifier import EmotionClassifier
    from fer_stream.faces.detector import FaceDetector

# What is assumed of a source that does not tell its frame rate.
_USUAL_FPS = 25.0

_VOICES = (
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
    found = settings.weights or next(filter(None, map(weights.find, _YUNET)), None)
    if found:
        from fer_stream.faces.yunet import YuNetDetector

        return YuNetDetector(
            found,
            long_side_px=settings.input_size_px,
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
    model_dir, backend = _model_dir(settings), runtime_of(settings)
    if backend == "keras":
        from fer_stream.classify.keras import KerasClassifier

        return KerasClassifier(model_dir, max_batch=settings.batch_size)
    if backend == "onnx":
        from fer_stream.classify.onnx import OnnxClassifier

        return OnnxClassifier(model_dir, threads=threads)
    if backend == "openvino":
        from fer_stream.classify.openvino import OpenVinoClassifier

        return OpenVinoClassifier(model_dir, threads=threads)
    from fer_stream.classify.litert import LiteRTClassifier

    return LiteRTClassifier(model_dir, threads=threads)


def runtime_of(settings: ModelSettings) -> Runtime:
    """What classifies. `auto` is Keras where there is a GPU that it can use, else the fastest on this CPU."""
    if settings.backend != "auto":
        return settings.backend
    files, installed = listed(_model_dir(settings)), versions().keys()
    if "keras" in usable(files, installed) and _has_gpu():
        return "keras"
    return choose(files, cpu_flags(), installed)


def runtimes(settings: ModelSettings) -> list[Runtime]:
    """What is installed and can run the model that the settings name."""
    return usable(listed(_model_dir(settings)), versions().keys())


def make_follower(
    source: FrameSource,
    detector: FaceDetector,
    settings: FileSettings | SourceSettings,
    metrics: Metrics,
    *,
    classify_every_s: float,
) -> FaceFollower:
    """What turns the frames of `source` into crops of known persons, of each one every `classify_every_s`."""
    geometry = geometry_of(detector.name)
    between = BetweenLooks(every_s=settings.detector.interval_s, sure=settings.tracker.new_track_confidence)
    return FaceFollower(
        detector,
        _identifier(source, settings),
        geometry,
        settings.quality,
        metrics,
        between=between,
        turns=Turns(classify_every_s),
    )


def open_live(name: str, settings: SourceSettings, *, last_epoch_ms: int, metrics: Metrics) -> LiveSource:
    """A camera. Raises `UnreadableSource` where its address is none."""
    from fer_stream.capture.camera import LiveSource

    url = settings.url.get_secret_value()
    return LiveSource(url, name=name, metrics=metrics, settings=settings, last_epoch_ms=last_epoch_ms)


def rate_of(source: FrameSource, fps: float | None) -> float:
    """How many frames a second of `source` are looked at, where `fps` is the limit."""
    return min(filter(None, (source.info.fps, fps)), default=_USUAL_FPS)


def versions() -> dict[str, str]:
    """The versions of everything installed that has a say in a result: most containers have no TensorFlow."""
    installed = {package: next(iter(metadata.distributions(name=package)), None) for package in _VOICES}
    return {package: found.version for package, found in installed.items() if found}


def _blazeface(settings: DetectorSettings, threads: int) -> FaceDetector:
    from fer_stream.faces.blazeface import BlazeFaceDetector

    return BlazeFaceDetector(settings.weights, min_confidence=settings.min_confidence, threads=threads)


def _identifier(source: FrameSource, settings: FileSettings | SourceSettings) -> Identifier:
    if source.info.kind == "image":
        return EverybodyNew()
    rate = rate_of(source, settings.fps)
    tracker = settings.tracker.at_rate(rate, settings.detector.interval_s)
    return Identities(lambda: ByteTrack(tracker), tracker)


def _model_dir(settings: ModelSettings) -> Path:
    return settings.path or weights.shipped_model_dir(settings.size)


def _has_gpu() -> bool:
    """Does TensorFlow see a GPU? It is loaded (4 s, 400 MB) only where the machine has one at all."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
