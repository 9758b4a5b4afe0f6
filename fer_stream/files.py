"""One file from end to end: open it, run it through the pipeline, write what comes out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from fer_stream import factory
from fer_stream.capture.source import FrameSource
from fer_stream.config.settings import FileSettings
from fer_stream.errors import OutputError
from fer_stream.metrics import Metrics
from fer_stream.outputs.base import Output
from fer_stream.pipeline import FileStages, Predictor, Progress, RunControl, StopFlag, run_file
from fer_stream.records import U8, FaceCrop, FileSummary, LabelledFrame, SourceInfo
from fer_stream.timeline.builder import TimelineBuilder

if TYPE_CHECKING:
    from fer_stream.outputs.downsample import ProbabilitySeries

OnProgress = Callable[[SourceInfo, Progress], object]
"""Told now and then how far a file is."""

Sink = Callable[[Sequence[LabelledFrame]], None]

Look = Callable[[Sequence[FaceCrop]], None]

OUTPUT_SUFFIXES = ("annotated.mp4", "annotated.png", "report.html", "timeline.png", "frames.csv", "timeline.json")
"""What results are called, behind the name of the job."""

INTERRUPTED = "interrupted"
"""`FileSummary.stopped` of a job that was asked to stop."""


@dataclass(frozen=True, slots=True)
class FileTask:
    """What to do: read `path` and write results called `name` into the folder `out`."""

    path: Path
    name: str
    out: Path
    force: bool = False

    def output_path(self, ending: str) -> Path:
        """Where the result with this ending lies."""
        return self.out / f"{self.name}.{ending}"

    def existing(self) -> list[Path]:
        """The results of this name that are there already, whoever wrote them."""
        return [path for path in map(self.output_path, OUTPUT_SUFFIXES) if path.exists() or path.is_symlink()]


@dataclass(frozen=True, slots=True)
class FileResult:
    """What came of a job: its summary and the files that were written."""

    summary: FileSummary
    outputs: tuple[Path, ...]


class FileProcessor:
    """The detector and the classifier, loaded once for many files, and the settings they were loaded with.

    `threads` is the number of cores that decoding and encoding may use; 0 is one per core. Unless it is 1, faces are
    found in one thread and classified in another.
    """

    def __init__(self, settings: FileSettings, *, threads: int = 0) -> None:
        self.settings = settings
        self.threads = threads
        self.detector = factory.make_detector(settings.detector)
        self.classifier = factory.make_classifier(settings.model)

    def open(self, path: Path, name: str) -> FrameSource:
        """Open a file. Raises a `SourceError` where it cannot be read."""
        return factory.open_file(
            path, name=name, stream_start_ms=time.time_ns() // 1_000_000, fps=self.settings.fps, threads=self.threads
        )

    def process(
        self,
        source: FrameSource,
        sink: Sink,
        *,
        metrics: Metrics,
        stop: StopFlag | None = None,
        progress: OnProgress | None = None,
        look: Look | None = None,
    ) -> FileSummary:
        """Run an open source and close it; `sink` gets its final frames, `look` its crops."""
        follower = factory.make_extractor(
            source, self.detector, self.settings, metrics, classify_interval_s=self.settings.model.interval_s
        )
        predictor = Predictor(
            self.classifier, self.settings.model.batch_size, self.settings.model.min_agreement, metrics
        )
        builder = TimelineBuilder(self.settings.timeline.at_rate(factory.effective_fps(source, self.settings.fps)))
        try:
            run = run_file(
                FileStages(source, follower, predictor, builder, sink, look or _noop, pipelined=self.threads != 1),
                RunControl(stop or Event(), (lambda run: progress(source.info, run)) if progress else _noop),
            )
        finally:
            source.close()
        return FileSummary(
            source=source.info,
            decode_errors=source.decode_errors,
            frames=run.frames,
            duration_s=run.last_s,
            unconfirmed_faces=follower.unconfirmed_faces,
            people=builder.people(),
            detector=self.detector.spec.name,
            model=self.classifier.spec,
            settings=self.settings.model_dump(mode="json"),
            versions=factory.versions(),
            stopped=INTERRUPTED if run.stopped else None,
        )


def process_file(
    engine: FileProcessor,
    job: FileTask,
    *,
    metrics: Metrics | None = None,
    stop: StopFlag | None = None,
    progress: OnProgress | None = None,
) -> FileResult:
    """Run one file and write its results, each whole or not at all.

    Raises a `SourceError` where the file cannot be read and an `OutputError` where a result cannot be written.
    """
    source = engine.open(job.path, job.name)
    thumbnails = Thumbnails()
    with ExitStack() as undo:
        undo.callback(source.close)
        writers: list[Output] = []
        for make in _writers(engine, job, source.info, thumbnails):
            writers.append(make())
            undo.callback(writers[-1].discard)

        def write(frames: Sequence[LabelledFrame]) -> None:
            for writer in writers:
                writer.write(frames)

        summary = engine.process(
            source,
            write,
            metrics=metrics or Metrics(CollectorRegistry()),
            stop=stop,
            progress=progress,
            look=thumbnails.update if engine.settings.outputs.thumbnails else None,
        )
        for writer in writers:
            writer.finish(summary)
    return FileResult(summary, tuple(writer.path for writer in writers))


def create_output_dir(path: Path) -> None:
    """Make the folder for results, and those above it. Raises `OutputError` where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"Cannot make the folder {path}: {reason}. Name another folder with --out.") from error


class Thumbnails:
    """The best crop of each person: uint8 (48, 48) by person_id."""

    def __init__(self) -> None:
        self.pixels: dict[int, U8] = {}
        self._scores: dict[int, float] = {}

    def update(self, crops: Sequence[FaceCrop]) -> None:
        """Keep those of `crops` that are better than what was kept before."""
        for crop in crops:
            person = crop.face.key.person_id
            if crop.face.quality.score > self._scores.get(person, -1.0):
                self._scores[person], self.pixels[person] = crop.face.quality.score, crop.pixels


def _writers(
    engine: FileProcessor, job: FileTask, info: SourceInfo, faces: Thumbnails
) -> Iterator[Callable[[], Output]]:
    """What makes the writers that the settings ask for; the largest output first, so that a full disk shows early.

    A still image has no time, so there is no report and no picture of it.
    """
    from fer_stream.outputs import tables
    from fer_stream.outputs.downsample import ProbabilitySeries

    wanted, moving = engine.settings.outputs, info.kind == "video"
    trace = ProbabilitySeries(max_gap_s=engine.settings.timeline.max_gap_s)
    if wanted.video:
        yield lambda: _annotated_writer(engine, job, info)
    if wanted.report and moving:
        yield lambda: _report_writer(job, trace, faces)
    if wanted.plot and moving:
        yield lambda: _picture_writer(job, trace)
    if wanted.table:
        yield lambda: tables.FrameTable(job.output_path("frames.csv"), force=job.force)
    yield lambda: tables.TimelineJson(job.output_path("timeline.json"), force=job.force)


def _annotated_writer(engine: FileProcessor, job: FileTask, info: SourceInfo) -> Output:
    from fer_stream.outputs.redaction import Redaction
    from fer_stream.outputs.video import AnnotatedImage, AnnotatedVideo

    outputs = engine.settings.outputs
    people = None if outputs.redact_persons is None else frozenset(outputs.redact_persons)
    redaction = None if outputs.redact == "none" else Redaction(outputs.redact, people)

    def open_again() -> FrameSource:
        return engine.open(job.path, job.name)

    if info.kind == "image":
        return AnnotatedImage(open_again, job.output_path("annotated.png"), redaction=redaction, force=job.force)
    return AnnotatedVideo(
        open_again, job.output_path("annotated.mp4"), redaction=redaction, audio_from=job.path, force=job.force
    )


def _report_writer(job: FileTask, trace: ProbabilitySeries, faces: Thumbnails) -> Output:
    from fer_stream.outputs.report import Report

    return Report(job.output_path("report.html"), trace, thumbnails=faces.pixels, force=job.force)


def _picture_writer(job: FileTask, trace: ProbabilitySeries) -> Output:
    from fer_stream.outputs.plot import TimelinePlot

    return TimelinePlot(job.output_path("timeline.png"), trace, force=job.force)


def _noop(*_: object) -> None:
    """Do nothing."""
