"""The settings of the live service, and what a change of them means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from platformdirs import user_state_path
from pydantic import Field, StringConstraints, model_validator

from fer_stream.config.files import FileSettings
from fer_stream.config.jobs import JobSettings
from fer_stream.config.servers import QueueSettings, StoreSettings
from fer_stream.config.settings import (
    DetectorSettings,
    LocalPath,
    ModelSettings,
    NotNegative,
    Positive,
    QualitySettings,
    Settings,
    TimelineSettings,
    TrackerSettings,
)
from fer_stream.config.sources import SourceSettings
from fer_stream.config.web import WebSettings

SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Port = Annotated[int, Field(ge=1, le=65535)]

_OF_SOURCES = ("detector", "tracker", "quality")
"""The groups of which every source has its own."""


class WorkerSettings(Settings):
    """How the work is divided between processes."""

    cameras_per_capture: Annotated[int, Field(ge=1)] = 12
    """A capture process reads so many. A core keeps up with 149 frames/s: 12 sources at 12 fps (docs/live.md)."""
    classifiers: Annotated[int, Field(ge=1)] | None = None
    """How many processes classify; by default as many as capture. On a core one classifies 340 faces a second, on a
    processor with AVX-512 VNNI 2,200 to 2,800."""
    batch_timeout_s: NotNegative = 0.0
    """A batch that is not full waits so long for more faces: 0 suits LiteRT, 20 a GPU."""


class LiveTimelineSettings(TimelineSettings):
    """How probabilities become labels, and how long the timeline waits for them."""

    allowed_lateness_s: Positive = 15.0
    """A result that comes later than this is counted and left out. Long enough for the faces of a worker that died:
    2 s in the queue and 12.5 s until they are redelivered."""


class RecordingSettings(Settings):
    """Timelines on disk, a table of frames and one of segments per source and day, and recordings."""

    dir: LocalPath | None = None
    """Where they go; by default nothing is written."""
    retention_days: Annotated[int, Field(ge=0)] | None = 30
    """Older files are deleted, recordings too, because they tell of persons; null keeps them all."""
    segment_s: Positive = 600.0
    """A recording begins a new file so often: ten minutes are found by their time and quick to open."""
    redact: Literal["none", "blur", "black"] = "none"
    """How faces are made unrecognisable in recordings."""


class MetricsSettings(Settings):
    """Prometheus metrics, on a port for each process."""

    port: Port | None = 9464
    """The first process serves here, each further one on the next port; null is none at all."""
    host: str = "127.0.0.1"
    """The address to listen on: they name the cameras, so by default this machine alone sees them."""
    targets: LocalPath | None = None
    """A file in which `serve` lists its processes for Prometheus (file_sd), with a name that ends in .json."""


class LogSettings(Settings):
    """What the processes say on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    """`json` is a line of JSON per event, for machines."""


class LiveSettings(Settings):
    """Everything `fer-stream serve` and the workers can be told."""

    sources: dict[SourceName, SourceSettings] = Field(default_factory=dict)
    """The cameras by name. Names stand in results, metrics and file names; they are no place for an address."""
    detector: DetectorSettings = DetectorSettings()
    tracker: TrackerSettings = TrackerSettings()
    quality: QualitySettings = QualitySettings()
    model: ModelSettings = ModelSettings()
    workers: WorkerSettings = WorkerSettings()
    timeline: LiveTimelineSettings = LiveTimelineSettings()
    recordings: RecordingSettings = RecordingSettings()
    jobs: JobSettings = JobSettings()
    queue: QueueSettings = QueueSettings()
    store: StoreSettings = StoreSettings()
    state_dir: LocalPath = Field(default_factory=lambda: user_state_path("fer-stream", appauthor=False))
    """The folder of the private servers, for this user alone; by default in the user's own state folder."""
    web: WebSettings = WebSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    def for_files(self) -> FileSettings:
        """How recorded files are processed unless something else is said: as the cameras are."""
        timeline = self.timeline.model_dump(include=set(TimelineSettings.model_fields))
        return FileSettings(
            detector=self.detector,
            tracker=self.tracker,
            quality=self.quality,
            model=self.model,
            timeline=TimelineSettings.model_validate(timeline),
        )

    @property
    def jobs_output_dir(self) -> Path:
        """Where the results of jobs go that name no other place."""
        return self.jobs.output_dir or self.state_dir / "jobs"

    @model_validator(mode="after")
    def _complete_sources(self) -> Self:
        """Give every source the whole of its detector, tracker and quality."""
        for name, source in self.sources.items():
            whole = {
                group: getattr(self, group).model_copy(update=getattr(source, group).model_dump(exclude_unset=True))
                for group in _OF_SOURCES
            }
            self.sources[name] = source.model_copy(update=whole)
        return self

    @model_validator(mode="after")
    def _recordings_have_a_place(self) -> Self:
        if not self.recordings.dir and (names := [name for name, source in self.sources.items() if source.record]):
            raise ValueError(f"recording {', '.join(names)} needs recordings.dir")
        return self


@dataclass(frozen=True, slots=True)
class Changes:
    """What is different in new settings: names of sources, and the groups that only a restart can change."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()


def changes(old: LiveSettings, new: LiveSettings) -> Changes:
    """What it takes to get from `old` to `new`.

    A source is changed where anything that holds for it is, also its part of `detector`, `tracker` or `quality`.
    """
    groups = [group for group in LiveSettings.model_fields if group not in ("sources", *_OF_SOURCES)]
    return Changes(
        added=tuple(name for name in new.sources if name not in old.sources),
        removed=tuple(name for name in old.sources if name not in new.sources),
        changed=tuple(
            name for name, source in new.sources.items() if name in old.sources and old.sources[name] != source
        ),
        restart=tuple(group for group in groups if getattr(old, group) != getattr(new, group)),
    )
