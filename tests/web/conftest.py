"""The application on a real store and a real port."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from prometheus_client import CollectorRegistry

from fer_stream.broker.client import Link, open_link
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.config import LiveSettings
from fer_stream.jobs.queue import RqJobs
from fer_stream.metrics import Metrics
from fer_stream.records import (
    LABELS,
    ClosedGap,
    ClosedSegment,
    Segment,
    Gap,
    LabelledFace,
    LabelledFrame,
    Quality,
    stream_id_of,
)
from fer_stream.service.web import server_config
from fer_stream.store.redis import RedisStore
from fer_stream.web.app import make_app
from tests.support.waiting import until

TOKEN = "correct-horse-battery-staple"
ASKED_FOR = {"X-Requested-With": "pytest"}
CHROMIUM = "/usr/bin/chromium"
PATIENCE_MS = 100_000

Opener = Callable[..., Page]


class Web:
    """One application with what is behind it."""

    def __init__(self, folder: Path, link: Link, web: dict[str, Any]) -> None:
        self.settings = LiveSettings.model_validate({"state_dir": folder, "web": web})
        self.store = RedisStore(link)
        self.jobs = RqJobs(link, self.settings.jobs)
        self.registry = CollectorRegistry()
        self.stop = threading.Event()
        self.app: FastAPI = make_app(
            self.store, self.jobs, self.settings, metrics=Metrics(self.registry), stop=self.stop
        )
        self.uploads = self.settings.state_dir / "uploads"
        config = server_config(self.app, self.settings.web.model_copy(update={"port": None}))
        listener = config.bind_socket()
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self.client = httpx.Client(base_url=self.address, timeout=30)
        until(lambda: self._server.started)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(f"/api/v1{path}", **options)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.client.close()
        self.stop.set()
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.store.close()


@pytest.fixture
def make_web(valkey_url: str, tmp_path: Path) -> Iterator[Callable[..., Web]]:
    """Makes applications on an empty store: `make_web(token=…)`."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    links: list[Link] = []
    made: list[Web] = []

    def make(url: str = valkey_url, **web: Any) -> Web:
        links.append(open_link(url, patience_s=0.5))
        made.append(Web(tmp_path / "state", links[-1], web))
        return made[-1]

    yield make
    for each in made:
        each.close()
    for link in links:
        link.stop.set()
        link.close()


@pytest.fixture
def web(make_web: Callable[..., Web]) -> Web:
    return make_web()


@pytest.fixture
def epoch() -> int:
    """Unix ms of a minute ago."""
    return int(1000 * (time.time() - 60))


@pytest.fixture
def frame(epoch: int) -> Callable[..., LabelledFrame]:
    """Makes frame `index` of a 10 fps stream with one happy face."""

    def make(index: int, source: str = "door", faces: int = 1) -> LabelledFrame:
        probs = np.array([0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05], np.float32)
        box = np.array([1, 2.25, 30, 40], np.float32)
        people = [
            LabelledFace(track, box, 0.9, Quality(0.8, "ok"), probs, probs, LABELS[3])
            for track in range(1, faces + 1)
        ]
        return LabelledFrame(stream_id_of(source, epoch), index, index / 10, tuple(people))

    return make


@pytest.fixture
def segment() -> Callable[..., ClosedSegment]:
    """Makes a segment of the door that lies at Unix time `start_at`."""

    def make(start_at: float, length_s: float = 2.0, track: int = 1) -> ClosedSegment:
        stream_id = stream_id_of("door", int(1000 * start_at))
        return ClosedSegment(stream_id, track, Segment("happy", 0.0, length_s, 0.75))

    return make


@pytest.fixture
def gap() -> Callable[[float], ClosedGap]:
    """Makes a gap of two seconds of the door."""

    def make(start_at: float) -> ClosedGap:
        stream_id = stream_id_of("door", int(1000 * start_at))
        return ClosedGap(stream_id, Gap("door", 0.0, 2.0, "stalled"))

    return make


class OwnStore:
    """A server that a test may stop and start again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedServer(folder, "store")
        self.url = self._server.url

    def stop(self) -> None:
        self._server.close()

    def start(self) -> None:
        self._server = EmbeddedServer(self._folder, "store")


@pytest.fixture
def own_store() -> Iterator[OwnStore]:
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:  # pytest's own path may be too long for a socket
        server = OwnStore(Path(folder))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Opener]:
    """Opens an address in a browser of its own: `open_page(url, fine=("413",), color_scheme="dark")`.

    Afterwards the console must be empty, but for errors that contain one of `fine`.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def visit(url: str, fine: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(**{"timezone_id": "Europe/Berlin", **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()

        def complain(text: str) -> None:
            if not any(word in text for word in fine):
                complaints.append(text)

        page.on("console", lambda message: complain(message.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.goto(url)
        return page

    expect.set_options(timeout=PATIENCE_MS)
    yield visit
    for context in contexts:
        context.close()
    assert not complaints
