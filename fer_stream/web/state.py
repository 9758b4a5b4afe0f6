"""What the routes share."""

from __future__ import annotations

import threading
from typing import Annotated

from fastapi import Depends, Request

from fer_stream.config import LiveSettings
from fer_stream.jobs.job import Jobs
from fer_stream.metrics import Metrics
from fer_stream.store.protocol import ResultStore
from fer_stream.web.cleanup import tidy
from fer_stream.web.events import Streams
from fer_stream.web.overview import Overview, Sight
from fer_stream.web.problems import Problem
from fer_stream.web.uploads import Uploads

API = "/api/v1"
"""What the paths of all routes begin with, but for those of health and of the page."""


class Desk:
    """Where requests are worked on: what is known, and who listens."""

    def __init__(
        self, store: ResultStore, jobs: Jobs, settings: LiveSettings, *, metrics: Metrics, stop: threading.Event
    ) -> None:
        self.store = store
        self.jobs = jobs
        self.settings = settings.web
        self.overview = Overview(store)
        self.streams = Streams(settings.web.max_streams, metrics, stop)
        self.uploads = Uploads(
            settings.state_dir.absolute() / "uploads",
            max_bytes=settings.web.max_upload_mb << 20,
        )
        self.results = settings.jobs_output_dir.absolute()
        self._result_s = settings.jobs.retention_days * 86_400
        self.file_settings = settings.for_files()

    def tidy(self, now: float) -> None:
        """Delete uploads and results that are over at Unix time `now`. Raises `QueueError`."""
        tidy(
            self.jobs.list(),
            self.uploads.folder,
            self.results,
            now=now,
            upload_s=self.settings.upload_retention_h * 3600,
            result_s=self._result_s,
        )

    def sight_of(self, name: str) -> Sight:
        """What is known of a source now. Raises `Problem` where there is none of that name."""
        found = self.overview.find(name)
        if found is None:
            raise Problem(404, f"There is no source {name!r}.", "GET /api/v1/sources lists those that there are.")
        return found


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]
