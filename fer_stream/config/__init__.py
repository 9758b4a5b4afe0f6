"""Every number that a user may want to turn, once, with its unit and the reason for its default.

    groups.py    what recordings and the live service have in common
    file.py      FileSettings: `fer-stream run` and `analyze`
    source.py    one camera of the live service
    servers.py   its queue and its store
    web.py       its page and HTTP API
    jobs.py      recorded files as jobs
    live.py      LiveSettings: the whole service, and what a change of its settings means

`fer_stream.config.loader` reads them from YAML.
"""

from fer_stream.config.files import FileSettings, OutputSettings
from fer_stream.config.jobs import JobSettings
from fer_stream.config.live import (
    Changes,
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
    ModelSettings,
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
