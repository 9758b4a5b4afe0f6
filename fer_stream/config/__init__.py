"""Every setting, once, with its unit and the reason for its default.

settings.py  FileSettings: `fer-stream run` and `analyze`, and the groups shared with the live service
sources.py   one camera of the live service
servers.py   its queue and its store
web.py       its page and HTTP API
live.py      LiveSettings: the whole service, and the effect of changing its settings
training.py  TrainSettings: `fer-stream train`
loader.py    settings from YAML
errors.py    errors with file, line, key and cure
"""

from fer_stream.config.live import (
    Changes,
    JobSettings,
    LiveSettings,
    LiveTimelineSettings,
    LogSettings,
    MetricsSettings,
    RecordingSettings,
    WorkerSettings,
    changes,
)
from fer_stream.config.servers import (
    QueueSettings,
    RedeliverySettings,
    RetentionSettings,
    ServerSettings,
    StoreSettings,
    TlsSettings,
)
from fer_stream.config.settings import (
    DetectorSettings,
    FileSettings,
    ModelSettings,
    OutputSettings,
    QualitySettings,
    Settings,
    TimelineSettings,
    TrackerSettings,
)
from fer_stream.config.sources import CameraSettings, OverflowSettings, SourceSettings
from fer_stream.config.web import WebSettings

__all__ = [
    "CameraSettings",
    "Changes",
    "DetectorSettings",
    "FileSettings",
    "JobSettings",
    "LiveSettings",
    "LiveTimelineSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelSettings",
    "OutputSettings",
    "OverflowSettings",
    "QualitySettings",
    "QueueSettings",
    "RecordingSettings",
    "RedeliverySettings",
    "RetentionSettings",
    "ServerSettings",
    "Settings",
    "SourceSettings",
    "StoreSettings",
    "TimelineSettings",
    "TlsSettings",
    "TrackerSettings",
    "WebSettings",
    "WorkerSettings",
    "changes",
]
