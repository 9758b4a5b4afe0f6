"""The web process: the live page and the HTTP API, until told to stop."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

import uvicorn
from fastapi import FastAPI

from fer_stream.config import WebSettings
from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.jobs.queue import RqJobs
from fer_stream.service.connections import open_store, open_store_link
from fer_stream.service.process import Process
from fer_stream.web.app import make_app
from fer_stream.web.state import Desk

_log = logging.getLogger(__name__)

# Somebody waits for every answer: better to say that the store is away.
_PATIENCE_S = 2.0
# Live streams end within a second of being told, uploads are given up.
_END_S = 1
_TIDY_S = 60.0


def web(process: Process) -> None:
    """Serve the page and the API until told to stop. Raises `ConfigError` where the port is taken."""
    settings = process.settings
    if settings.web.port is None:
        raise ConfigError("There is no page to serve: web.port is null.")
    link = process.link_to("store", partial(open_store_link, patience_s=_PATIENCE_S))
    store, jobs = open_store(link, settings), RqJobs(link, settings.jobs)
    app = make_app(store, jobs, settings, metrics=process.metrics, stop=process.stop)
    config = server_config(app, settings.web)
    server = uvicorn.Server(config)
    try:
        listener = config.bind_socket()
    except SystemExit:
        # uvicorn has logged why.
        raise ConfigError(
            f"The page cannot listen on {settings.web.address}: another program has that port, or the address is not "
            f"of this machine. Choose another web.port or web.host."
        ) from None
    # Not in the main thread, where uvicorn would take over the signals.
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web")
    serving.start()
    _log.info("the page is at %s", settings.web.address)
    tidied_s = -_TIDY_S
    while serving.is_alive() and not process.stop.wait(0.5):
        process.health.beat()
        if time.monotonic() - tidied_s > _TIDY_S:
            tidied_s = time.monotonic()
            _tidy(app.state.desk)
    server.should_exit = True
    serving.join()


def server_config(app: FastAPI, settings: WebSettings) -> uvicorn.Config:
    """How `app` is served."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port or 0,
        # Ours has the one place through which all logs go.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_END_S,
        lifespan="on",
        # uvicorn believes everybody on this machine otherwise.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )


def _tidy(desk: Desk) -> None:
    try:
        desk.tidy(time.time())
    except (FerStreamError, OSError) as error:
        _log.error("uploads that are over are not deleted for now: %s", error)
