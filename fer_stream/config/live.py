"""Settings of the live service and its sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

from platformdirs import user_state_path
from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationInfo, model_validator

from fer_stream.config.servers import QueueSettings, StoreSettings, WebSettings
from fer_stream.config.settings import (
    CHECK_FILES,
    DetectorSettings,
    FileSettings,
    Fraction,
    LocalPath,
    ModelSettings,
    NotNegative,
    Positive,
    QualitySettings,
    Settings,
    TimelineSettings,
    TrackerSettings,
)
from fer_stream.config.source_url import LOGIN_SCHEMES, TLS_SCHEMES, check_file, check_source_url, kind_of, split_url


def _check_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    check_source_url(url.get_secret_value())
    if info.context and info.context.get(CHECK_FILES):
        check_file(url.get_secret_value())
    return url


def _check_zone(zone: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = zone
    if left >= right or top >= bottom:
        raise ValueError("a zone must be [left, top, right, bottom] with left < right and top < bottom")
    return zone


def _check_readable(path: Path, info: ValidationInfo) -> Path:
    if info.context and info.context.get(CHECK_FILES) and not path.is_file():
        raise ValueError("the file does not exist: check the path, which is relative to the working directory")
    return path


SourceUrl = Annotated[SecretStr, AfterValidator(_check_url), Field(json_schema_extra={"type": ["string", "integer"]})]
Zone = Annotated[tuple[Fraction, Fraction, Fraction, Fraction], AfterValidator(_check_zone)]
"""[left, top, right, bottom] as fractions of the frame."""


class CertificateSettings(Settings):
    """Verification of the certificate of an rtsps or https camera."""

    verify: bool = True
    """Whether the certificate must be valid for the host of the URL. false accepts any certificate, so that whoever
    controls the network can read the password and replace the picture."""
    ca: Annotated[LocalPath, AfterValidator(_check_readable)] | None = None
    """PEM file with the certificate of the camera or of the authority that signed it. Default: the system's
    certificate authorities."""


class CameraSettings(Settings):
    """Connection to a camera."""

    username: str | None = None
    """User of the camera. Unlike in `url`, special characters are not percent-encoded."""
    password: SecretStr | None = None
    """Password of the camera, not percent-encoded; for srt:// the passphrase of the stream."""
    tls: CertificateSettings = CertificateSettings()
    transport: Literal["tcp", "udp"] = "tcp"
    """Transport of RTSP. TCP loses no packets; use UDP for cameras that do not support TCP."""
    fps: Positive | None = None
    """Maximum number of frames analysed per second. Default: all, because tracking needs boxes that overlap from one
    frame to the next. If the machine is too slow, the newest frame is analysed and older ones are dropped. A snapshot
    URL is requested at this rate, by default twice per second."""
    max_long_side_px: Annotated[int, Field(ge=64)] | None = None
    """Frames with a longer side are scaled down to it. Default: no limit."""
    open_timeout_s: Positive = 5.0
    """Timeout of each of the two steps of connecting: the first response, and probing the stream."""
    stall_timeout_s: Positive = 5.0
    """A connected camera that sends no data for this long is stalled. Must exceed the segment length of HLS."""
    no_frame_timeout_s: Positive = 30.0
    """Maximum time that data may arrive without a decodable frame. Must exceed the interval between key frames."""
    reconnect_min_s: Positive = 0.5
    """Delay before the first reconnection attempt; it doubles with every failure."""
    reconnect_max_s: Positive = 30.0
    """Maximum delay between attempts."""
    reconnect_auth_s: Positive = 60.0
    """Delay after a wrong password or an unknown path. More frequent attempts lock accounts."""


class OverflowSettings(Settings):
    """Behaviour when a source produces more faces than the workers classify."""

    policy: Literal["auto", "drop_oldest", "block"] = "auto"
    """`drop_oldest` drops and counts the oldest faces; `block` makes the source wait. `auto` drops the faces of a
    camera, where old labels are useless, and blocks a file, which must be complete."""
    capacity: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of queued faces. Default: 64 with `drop_oldest` (2 s at 15 fps with two faces), otherwise 256
    (full batches for several workers)."""
    max_age_s: Positive = 2.0
    """Maximum age of a queued face with `drop_oldest`."""


class SourceSettings(CameraSettings):
    """One camera, or a file played like one."""

    url: SourceUrl
    """A URL that starts with rtsp://, rtsps://, http://, https://, rtmp://, srt:// or udp://, a device such as
    /dev/video0, a webcam number, or a video file. Treated as a secret, because it may contain a password."""
    playback: Literal["realtime", "fast"] = "realtime"
    """Speed at which a file is read: at its frame rate, or as fast as possible. Ignored for cameras."""
    ignore_zones: tuple[Zone, ...] = ()
    """Faces with their centre in one of these zones are ignored: posters, screens, a street behind a window."""
    record: bool = False
    """Write the annotated video to `recordings.dir`. Off by default, because it is the most personal of all
    outputs."""
    overflow: OverflowSettings = OverflowSettings()
    detector: DetectorSettings = DetectorSettings()
    """Overrides the service's `detector` for this source; likewise `tracker` and `quality`."""
    tracker: TrackerSettings = TrackerSettings()
    quality: QualitySettings = QualitySettings()

    @property
    def kind(self) -> Literal["camera", "file"]:
        """The kind of source that `url` refers to."""
        return kind_of(self.url.get_secret_value())

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        text = self.url.get_secret_value()
        parts = split_url(text) if "://" in text else None
        scheme = parts.scheme if parts else "file"
        if (self.username and scheme not in LOGIN_SCHEMES) or (
            self.password and scheme not in (*LOGIN_SCHEMES, "srt")
        ):
            raise ValueError(f"username and password need a URL of one of the schemes {', '.join(LOGIN_SCHEMES)}")
        if parts and ((parts.user and self.username) or (parts.password and self.password)):
            raise ValueError("give user and password in url, or in username and password, not in both")
        if self.password and not (self.username or (parts and parts.user)) and scheme in LOGIN_SCHEMES:
            raise ValueError("password needs a username")
        if self.tls != CertificateSettings() and scheme not in TLS_SCHEMES:
            raise ValueError("tls needs an rtsps:// or https:// url")
        if self.tls.ca and not self.tls.verify:
            raise ValueError("tls.ca has no effect if tls.verify is false")
        return self


PER_SOURCE = ("detector", "tracker", "quality")
"""Groups that each source can override."""

SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class WorkerSettings(Settings):
    """Division of the work between processes."""

    cameras_per_capture: Annotated[int, Field(ge=1)] = 12
    """Maximum number of sources per capture process. A core decodes 149 frames/s: 12 sources at 12 fps."""
    classifiers: Annotated[int, Field(ge=1)] | None = None
    """Number of classification processes. Default: as many as capture processes. One core classifies 340 faces per
    second, or 2,200 to 2,800 with AVX-512 VNNI."""
    timelines: Annotated[int, Field(ge=1)] | None = None
    """Number of timeline processes, which divide the shards of the queue. Default: one per shard."""
    batch_timeout_s: NotNegative = 0.0
    """Maximum time that an incomplete batch waits for more faces: 0 suits LiteRT, 0.02 a GPU."""


class LiveTimelineSettings(TimelineSettings):
    """Smoothing of probabilities into stable labels, and the maximum wait for them."""

    allowed_lateness_s: Positive = 15.0
    """Predictions that arrive later are counted and dropped. Must exceed the time that a face of a crashed worker
    takes: 2 s in the queue and 12.5 s until redelivery."""


class RecordingSettings(Settings):
    """Files of the live service: a table of frames and one of segments per source and day, and recordings."""

    dir: LocalPath | None = None
    """Output folder. Default: no files are written."""
    retention_days: Annotated[int, Field(ge=0)] | None = 30
    """Older files are deleted, including recordings. null keeps them."""
    segment_s: Positive = 600.0
    """Length of one recording file."""
    redact: Literal["none", "blur", "black"] = "none"
    """How faces are made unrecognisable in recordings."""


class JobSettings(Settings):
    """Recorded files as jobs of the service."""

    output_dir: LocalPath | None = None
    """Folder of results, unless `fer-stream submit --out` names another. Default: `jobs` in `state_dir`. Workers on
    other machines need the same folder at the same path."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Number of concurrent jobs. They run at lower priority than the cameras. 0 leaves them to other machines."""
    timeout_s: Annotated[int, Field(ge=1)] = 21_600
    """Maximum duration of a job. A job that exceeds it fails and is not retried."""
    retry_delays_s: tuple[Annotated[int, Field(ge=1)], ...] = (10, 60)
    """Delays before each retry after a temporary fault: a killed process, a full disk, an unreachable store. A file
    that cannot be read is not retried. [] disables retries."""
    retention_days: Positive = 7.0
    """Retention of the records of finished jobs. Results are kept until you delete them."""


class MetricsSettings(Settings):
    """Prometheus metrics, on one port per process."""

    port: Port | None = 9464
    """Port of the first process; each further process uses the next one. null disables metrics."""
    host: str = "127.0.0.1"
    """Address to listen on. Metrics contain camera names, so the default is this machine only."""
    targets: LocalPath | None = None
    """JSON file in which `serve` lists its processes for Prometheus (file_sd)."""


class LogSettings(Settings):
    """Logs on stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    """`json` writes one JSON object per line."""


class LiveSettings(Settings):
    """Settings of `fer-stream serve` and its workers."""

    sources: dict[SourceName, SourceSettings] = Field(default_factory=dict)
    """Cameras by name. Names appear in results, metrics and file names."""
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
    """Folder of the embedded servers. Default: the user's state folder."""
    web: WebSettings = WebSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    def for_files(self) -> FileSettings:
        """Return the settings of recorded files: those of the cameras."""
        timeline = self.timeline.model_dump(include=set(TimelineSettings.model_fields))
        return FileSettings(
            detector=self.detector,
            tracker=self.tracker,
            quality=self.quality,
            model=self.model,
            timeline=TimelineSettings.model_validate(timeline),
        )

    def with_detectors(self, select: Callable[[DetectorSettings], DetectorSettings]) -> Self:
        """Return these settings with `select` applied to the detectors of files and of every source."""
        sources = {
            name: source.model_copy(update={"detector": select(source.detector)})
            for name, source in self.sources.items()
        }
        return self.model_copy(update={"detector": select(self.detector), "sources": sources})

    @property
    def jobs_output_dir(self) -> Path:
        """Folder of the results of jobs that name no other."""
        return self.jobs.output_dir or self.state_dir / "jobs"

    @model_validator(mode="after")
    def _merge_source_groups(self) -> Self:
        """Complete the detector, tracker and quality of every source with the service's values."""
        for name, source in self.sources.items():
            merged = {
                group: getattr(self, group).model_copy(update=getattr(source, group).model_dump(exclude_unset=True))
                for group in PER_SOURCE
            }
            self.sources[name] = source.model_copy(update=merged)
        return self

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        if excess := self.queue.excess(self.sources):
            raise ValueError(excess)
        return self

    @model_validator(mode="after")
    def _check_recordings(self) -> Self:
        if not self.recordings.dir and (names := [name for name, source in self.sources.items() if source.record]):
            raise ValueError(f"recording {', '.join(names)} needs recordings.dir")
        return self
