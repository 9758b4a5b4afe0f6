"""Fixtures: the web application with a real store on a real port, and a real browser."""

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

from fer_stream.broker.client import RedisClient, open_client
from fer_stream.broker.embedded import EmbeddedServer
from fer_stream.config.live import LiveSettings
from fer_stream.config.reload import SourceFilter
from fer_stream.jobs.queue import RqJobs
from fer_stream.metrics import Metrics
from fer_stream.records import (
    LABELS,
    Gap,
    LabelledFace,
    LabelledFrame,
    Quality,
    Segment,
    stream_id_of,
)
from fer_stream.service.web import server_config
from fer_stream.store.redis import RedisStore
from fer_stream.web.app import create_app
from tests.support.waiting import wait_until

TOKEN = "correct-horse-battery-staple"
CSRF_HEADERS = {"X-Requested-With": "pytest"}
CHROMIUM = "/usr/bin/chromium"
TIMEOUT_MS = 100_000

Opener = Callable[..., Page]


class Web:
    """A running application with its store, jobs and metrics."""

    def __init__(self, folder: Path, link: RedisClient, web: dict[str, Any]) -> None:
        self.settings = LiveSettings.model_validate({"state_dir": folder, "web": web})
        self.store = RedisStore(link)
        self.jobs = RqJobs(link, self.settings.jobs)
        self.registry = CollectorRegistry()
        self.stop = threading.Event()
        self.is_configured = SourceFilter(self.settings)
        self.app: FastAPI = create_app(
            self.store,
            self.jobs,
            self.settings,
            is_shown=self.is_configured,
            metrics=Metrics(self.registry),
            stop=self.stop,
        )
        self.uploads = self.settings.state_dir / "uploads"
        config = server_config(self.app, self.settings.web.model_copy(update={"port": None}))
        listener = config.bind_socket()
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self.client = httpx.Client(base_url=self.address, timeout=30)
        wait_until(lambda: self._server.started)

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
    """Return a function that starts an application on an empty store: `make_web(token=…)`."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    links: list[RedisClient] = []
    made: list[Web] = []

    def make(url: str = valkey_url, **web: Any) -> Web:
        links.append(open_client(url, retry_timeout_s=0.5))
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
def session_start_ms() -> int:
    """Return a session start one minute ago, in Unix ms."""
    return int(1000 * (time.time() - 60))


@pytest.fixture
def frame(session_start_ms: int) -> Callable[..., LabelledFrame]:
    """Return a function that makes frame `index` of a 10 fps session with happy faces."""

    def make(index: int, source: str = "door", faces: int = 1) -> LabelledFrame:
        probs = np.array([0.05, 0.05, 0.05, 0.7, 0.05, 0.05, 0.05], np.float32)
        box = np.array([1, 2.25, 30, 40], np.float32)
        people = [
            LabelledFace(person_id, box, 0.9, Quality(0.8, "ok"), probs, probs, LABELS[3])
            for person_id in range(1, faces + 1)
        ]
        return LabelledFrame(stream_id_of(source, session_start_ms), index, index / 10, tuple(people))

    return make


@pytest.fixture
def segment() -> Callable[..., Segment]:
    """Return a function that makes a segment of `door` starting at Unix time `start_at`."""

    def make(start_at: float, length_s: float = 2.0, person_id: int = 1) -> Segment:
        stream_id = stream_id_of("door", int(1000 * start_at))
        return Segment(stream_id, person_id, "happy", 0.0, length_s, 0.75)

    return make


@pytest.fixture
def gap() -> Callable[[float], Gap]:
    """Return a function that makes a gap of `door` of two seconds."""

    def make(start_at: float) -> Gap:
        stream_id = stream_id_of("door", int(1000 * start_at))
        return Gap(stream_id, 0.0, 2.0, "stalled")

    return make


class RestartableStore:
    """A Redis server that a test can stop and start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedServer(folder, "store")
        self.url = self._server.url

    def stop(self) -> None:
        self._server.close()

    def start(self) -> None:
        self._server = EmbeddedServer(self._folder, "store")


@pytest.fixture
def restartable_store() -> Iterator[RestartableStore]:
    with tempfile.TemporaryDirectory(prefix="fer-") as folder:  # tmp_path can be too long for a Unix socket
        server = RestartableStore(Path(folder))
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
    """Return a function that opens a URL in a new browser context.

    Example: `open_page(url, expected_errors=("413",), color_scheme="dark")`. The test fails if the console has
    messages other than those that contain one of `expected_errors`.
    """
    contexts: list[BrowserContext] = []
    messages: list[str] = []

    def visit(url: str, expected_errors: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(**{"timezone_id": "Europe/Berlin", **options})
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()

        def on_message(text: str) -> None:
            if not any(expected in text for expected in expected_errors):
                messages.append(text)

        page.on("console", lambda message: on_message(message.text))
        page.on("pageerror", lambda error: on_message(str(error)))
        page.goto(url)
        return page

    expect.set_options(timeout=TIMEOUT_MS)
    yield visit
    for context in contexts:
        context.close()
    assert not messages
