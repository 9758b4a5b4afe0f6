"""The web process: serves the live page and the HTTP API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from fer_stream.config.reload import SourceFilter
from fer_stream.errors import ConfigError, FerStreamError
from fer_stream.jobs.queue import RqJobs
from fer_stream.log import get_logger
from fer_stream.service.process import connect_store, open_store, prepare_state_dir, reload_settings
from fer_stream.web.app import create_app

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings
    from fer_stream.config.servers import WebSettings
    from fer_stream.service.process import ServiceContext
    from fer_stream.web.state import WebState

_log = get_logger(__name__)

# A user waits for each response: report an unreachable store soon.
_STORE_TIMEOUT_S = 2.0
# Live streams end within 1 s of the stop request; uploads are aborted.
_SHUTDOWN_TIMEOUT_S = 1
_CLEANUP_INTERVAL_S = 60.0
_INTERVAL_S = 0.5


def web(context: ServiceContext, load: Callable[[], LiveSettings] | None = None) -> None:
    """Serve the page and the API until stopped. On SIGHUP, `load` the settings again: removed sources disappear.

    Raises `ConfigError` if the port is in use.
    """
    settings = context.settings
    if settings.web.port is None:
        raise ConfigError("The web page is disabled: set web.port.")
    prepare_state_dir(settings.state_dir)
    client = context.connect("store", partial(connect_store, retry_timeout_s=_STORE_TIMEOUT_S))
    store, jobs = open_store(client, settings), RqJobs(client, settings.jobs)
    is_configured = SourceFilter(settings)
    app = create_app(store, jobs, settings, is_shown=is_configured, metrics=context.metrics, stop=context.stop)
    config = server_config(app, settings.web)
    server = uvicorn.Server(config)
    try:
        listener = config.bind_socket()
    except SystemExit:
        # uvicorn has logged the reason.
        raise ConfigError(
            f"The web page cannot listen on {settings.web.address}: the port is in use, or the address does not "
            f"belong to this machine. Choose another web.port or web.host."
        ) from None
    # In a thread, because uvicorn replaces the signal handlers in the main thread.
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web")
    serving.start()
    _log.info("worker_ready", address=settings.web.address)
    cleaned_s = -_CLEANUP_INTERVAL_S
    while serving.is_alive() and not context.stop.is_set():
        context.wakeup.wait(_INTERVAL_S)
        context.wakeup.clear()
        context.health.heartbeat()
        if load is not None and context.reload.is_set():
            context.reload.clear()
            settings, difference = reload_settings(load, settings)
            is_configured.update(settings, difference)
        if time.monotonic() - cleaned_s > _CLEANUP_INTERVAL_S:
            cleaned_s = time.monotonic()
            _clean_up(app.state.web)
    server.should_exit = True
    serving.join()


def server_config(app: FastAPI, settings: WebSettings) -> uvicorn.Config:
    """Return the uvicorn configuration for `app`."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port or 0,
        # All logs go through `fer_stream.log`, which removes secrets.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        lifespan="on",
        # By default uvicorn trusts proxy headers of every client on this machine.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )


def _clean_up(state: WebState) -> None:
    try:
        state.clean_up(time.time())
    except (FerStreamError, OSError) as error:
        _log.error("cleanup_failed", error=str(error))
