"""Processing of one file: open it, analyse it, write the results."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from fer_stream import factory
from fer_stream.capture.discovery import ensure_readable
from fer_stream.errors import OutputError, UnreadableSource
from fer_stream.metrics import Metrics
from fer_stream.outputs.atomic_file import create_output_dir, refuse_existing
from fer_stream.outputs.downsample import ProbabilitySeries
from fer_stream.outputs.existing import Existing, KeptResults, find_kept, remove_interrupted, remove_results
from fer_stream.outputs.output_set import OutputSet, enabled_outputs
from fer_stream.outputs.registry import OutputContext, result_paths
from fer_stream.outputs.timeline_json import without_directories
from fer_stream.pipeline import FileStages, OnCrops, Predictor, Progress, RunControl, Sink, StopFlag, run_file
from fer_stream.records import U8, FaceCrop, FileSummary, Provenance, SourceInfo
from fer_stream.resource_limits import cores, ensure_limits
from fer_stream.timeline.builder import TimelineBuilder

if TYPE_CHECKING:
    from fer_stream.capture.source import FrameSource
    from fer_stream.config.settings import FileSettings

OnProgress = Callable[[SourceInfo, Progress], object]
"""Called after each batch of a file."""

INTERRUPTED = "interrupted"
"""`FileSummary.stopped` of a run that was stopped early."""


@dataclass(frozen=True, slots=True)
class FileTask:
    """A file to analyse: the input `path`, and the base name and directory of its results.

    `existing` is what happens to results that exist. `label` is the name of the file for the user. The results record
    `command`, the command line, and `recorded_path`, by default that of the file.
    """

    path: Path
    name: str
    output_dir: Path
    existing: Existing = "error"
    label: str = ""
    command: str | None = None
    recorded_path: str | None = None

    @property
    def stem(self) -> Path:
        """Path of the results without suffix."""
        return self.output_dir / self.name

    @property
    def interrupted_stem(self) -> Path:
        """Path without suffix of the results of an interrupted run."""
        return self.output_dir / f"{self.name}.{INTERRUPTED}"

    def refuse_existing(self, exports: Collection[str]) -> None:
        """Raise `OutputExists` if a file has the name of a result, unless the task may replace it."""
        if self.existing != "replace":
            refuse_existing(result_paths(self.stem, exports))


@dataclass(frozen=True, slots=True)
class FileResult:
    """Summary of an analysed file, the paths of its results, and the error of each result that is missing.

    `outputs` includes results of an earlier run that were kept.
    """

    summary: FileSummary
    outputs: tuple[Path, ...]
    failures: tuple[OutputError, ...] = ()


class FileProcessor:
    """Detector and classifier, loaded once for many files, with the settings that they were loaded with.

    `threads` is the number of cores for decoding and encoding; 0 means one per core. Unless it is 1, faces are
    extracted in one thread and classified in another.
    """

    def __init__(self, settings: FileSettings, *, threads: int = 0) -> None:
        ensure_limits(threads or cores())
        self.settings = settings
        self.threads = threads
        self.detector = factory.make_detector(settings.detector)
        self.backend = factory.backend_for(settings.model)
        self.classifier = factory.make_classifier(settings.model.model_copy(update={"backend": self.backend}))

    def open(self, path: Path, name: str) -> FrameSource:
        """Open a file. Raises a `SourceError` if it cannot be read."""
        return factory.open_file(
            path,
            name=name,
            stream_start_ms=time.time_ns() // 1_000_000,
            options=factory.read_options(self.settings),
            threads=self.threads,
        )

    def process(
        self,
        source: FrameSource,
        sink: Sink,
        *,
        metrics: Metrics | None = None,
        control: RunControl | None = None,
        on_crops: OnCrops | None = None,
    ) -> FileSummary:
        """Analyse an open source and close it.

        `sink` receives the final frames in order, `on_crops` the face crops of each batch.
        """
        metrics = metrics or Metrics(CollectorRegistry())
        settings, model = self.settings, self.settings.model
        extractor = factory.make_extractor(
            source,
            factory.scaled_detector(self.detector, source.info, settings),
            settings,
            metrics,
            classify_interval_s=model.interval_s,
        )
        predictor = Predictor(self.classifier, model.batch_size, model.min_agreement, metrics)
        builder = TimelineBuilder(settings.timeline.at_rate(factory.effective_fps(source, settings.fps)))
        stages = FileStages(
            source, extractor, predictor, builder, sink, on_crops or _noop, pipelined=self.threads != 1
        )
        try:
            progress = run_file(stages, control or RunControl())
        finally:
            source.close()
        return FileSummary(
            source=source.info,
            decode_errors=source.decode_errors,
            frames=progress.frames,
            duration_s=max(0.0, progress.last_s - source.info.start_s),
            unconfirmed_faces=extractor.unconfirmed_faces,
            smallest_face_px=factory.smallest_face_px(self.detector, source.info, settings),
            people=builder.people(),
            detector=self.detector.spec.name,
            backend=self.backend,
            model=self.classifier.spec,
            settings=settings.model_dump(mode="json"),
            versions=factory.versions(),
            stopped=INTERRUPTED if progress.stopped else None,
        )


class Thumbnails:
    """Best crop of each person: `pixels` maps person_id to uint8 (48, 48)."""

    def __init__(self) -> None:
        self.pixels: dict[int, U8] = {}
        self._scores: dict[int, float] = {}

    def update(self, crops: Sequence[FaceCrop]) -> None:
        """Keep the crops whose quality is higher than that of the current crop of the person."""
        for crop in crops:
            person_id, score = crop.face.key.person_id, crop.face.quality.score
            if score > self._scores.get(person_id, -1.0):
                self._scores[person_id], self.pixels[person_id] = score, crop.pixels


def find_results(processor: FileProcessor, task: FileTask) -> KeptResults | None:
    """Return the results of an earlier run that `task` keeps; None if there are none or the task does not `skip`.

    Raises `OutputExists` if there are results of another or an incomplete run, and `SourceError` if the file cannot
    be read.
    """
    exports = processor.settings.outputs.export
    if task.existing != "skip":
        task.refuse_existing(exports)
        return None
    ensure_readable(task.path)
    settings = processor.settings.model_dump(mode="json")
    return find_kept(
        task.stem,
        lambda: {
            "source": {"sha256": _provenance(task).sha256},
            "model": {"sha256": processor.classifier.spec.sha256},
            "detector": processor.detector.spec.name,
            "backend": processor.backend,
            "versions": factory.versions(),
            "settings": without_directories(settings),
        },
        exports=exports,
    )


def missing_results(processor: FileProcessor, task: FileTask, kept: KeptResults) -> set[Path]:
    """Return the results that the settings enable and that are not among those kept."""
    return {*enabled_outputs(processor.settings.outputs, task.stem, kept.kind).values()} - kept.paths


def process_file(
    processor: FileProcessor,
    task: FileTask,
    *,
    keep: Collection[Path] = (),
    metrics: Metrics | None = None,
    stop: StopFlag | None = None,
    progress: OnProgress | None = None,
) -> FileResult:
    """Analyse one file and write its results except those in `keep`; they appear when all are complete.

    Results of a run that was stopped are called NAME.interrupted.*. A result that cannot be written, such as the
    video on a full disk, is one of the `failures` of the returned value. Raises a `SourceError` if the file cannot be
    read, and an `OutputError` if no result can be written.
    """
    source = processor.open(task.path, task.name)
    thumbnails = Thumbnails()
    outputs = OutputSet()
    with ExitStack() as cleanup:
        cleanup.callback(source.close)
        cleanup.callback(outputs.discard)
        context = _output_context(processor, task, source.info, thumbnails)
        provenance = _provenance(task)
        create_output_dir(task.output_dir)
        outputs.create(processor.settings.outputs, task.stem, context, omit=keep)
        summary = processor.process(
            source,
            outputs.write,
            metrics=metrics,
            control=RunControl(stop or Event(), partial(progress, source.info) if progress else _noop),
            on_crops=thumbnails.update if processor.settings.outputs.thumbnails else None,
        )
        outputs.finish(replace(summary, provenance=provenance))
        written = _commit(outputs, task, interrupted=summary.stopped is not None)
    return FileResult(summary, (*sorted(keep), *written), tuple(outputs.failures.values()))


def _commit(outputs: OutputSet, task: FileTask, *, interrupted: bool) -> tuple[Path, ...]:
    """Give the results their names. Results that they replace or supersede are removed."""
    remove_interrupted(task.interrupted_stem)
    if interrupted:
        return outputs.commit(
            lambda path: task.interrupted_stem.with_name(
                task.interrupted_stem.name + path.name.removeprefix(task.name)
            )
        )
    if task.existing == "replace":
        remove_results(task.stem, keep=outputs.paths)
    return outputs.commit()


def _provenance(task: FileTask) -> Provenance:
    """Read the file and return its checksum. Raises `UnreadableSource` if that fails."""
    try:
        with task.path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
    except OSError as error:
        raise UnreadableSource(f"{task.path} cannot be read: {error.strerror}.") from error
    path = task.recorded_path or str(task.path.absolute())
    return Provenance(path, size_bytes, sha256, time.time(), task.command)


def _output_context(
    processor: FileProcessor, task: FileTask, info: SourceInfo, thumbnails: Thumbnails
) -> OutputContext:
    return OutputContext(
        input_path=task.path,
        info=info,
        open_source=partial(processor.open, task.path, task.name),
        series=ProbabilitySeries(max_gap_s=processor.settings.timeline.max_gap_s),
        thumbnails=thumbnails.pixels,
        force=task.existing == "replace",
    )


def _noop(*_: object) -> None:
    """Do nothing."""
