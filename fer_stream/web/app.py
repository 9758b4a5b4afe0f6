"""The application: routes, the guard around them, and the page.

browser, program ─▶ Guard ─┬─▶ /api/v1/sources, /live    sources.py, live.py    ◀─ ResultStore
                           ├─▶ /api/v1/jobs              jobs.py, uploads.py    ◀─ Jobs
                           ├─▶ /healthz, /readyz
                           └─▶ /                         static/
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from fer_stream import __version__
from fer_stream.config import LiveSettings
from fer_stream.jobs.job import Jobs
from fer_stream.metrics import Metrics
from fer_stream.store.protocol import ResultStore
from fer_stream.web import jobs as job_routes
from fer_stream.web import sources
from fer_stream.web.problems import Problem
from fer_stream.web.schemas import HealthModel, ProblemModel
from fer_stream.web.security import Guard
from fer_stream.web.state import API, Desk

_PAGE = Path(__file__).parent / "static"

_REF = "#/components/schemas/ProblemModel"


def make_app(
    store: ResultStore,
    jobs: Jobs,
    settings: LiveSettings,
    *,
    metrics: Metrics,
    stop: threading.Event,
) -> FastAPI:
    """The whole application. `stop` ends the live streams, so that the server can end."""
    app = FastAPI(
        title="fer-stream",
        version=__version__,
        description="Who showed which emotion, when. Times are Unix seconds; labels of `live` are provisional.",
        openapi_url=f"{API}/openapi.json",
        # Both pages would load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    desk = app.state.desk = Desk(store, jobs, settings, metrics=metrics, stop=stop)
    app.include_router(sources.router)
    app.include_router(job_routes.router)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> HealthModel:
        """The process is there, even if all of its threads wait for the store."""
        return HealthModel()

    @app.get("/readyz", tags=["health"])
    def readyz() -> HealthModel:
        """The store answers too."""
        desk.overview.look()
        return HealthModel()

    app.mount("/", StaticFiles(directory=_PAGE, html=True), name="page")
    app.add_middleware(Guard, settings=settings.web, metrics=metrics)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.openapi = _described(app)  # type: ignore[method-assign]
    return app


def _refused(_: Request, error: Exception) -> Response:
    """What the router itself says: nothing of that name, or not with this method."""
    assert isinstance(error, HTTPException)
    return Problem(
        error.status_code, str(error.detail), f"{API}/openapi.json lists all there is.", error.headers
    ).response()


def _misunderstood(_: Request, error: Exception) -> Response:
    """A parameter that does not fit: which one, and what was expected, but not what was sent."""
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()]
    return Problem(422, "; ".join(faults), f"{API}/openapi.json says what is expected.").response()


def _described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """OpenAPI with our problems in place of FastAPI's own errors."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemModel"] = ProblemModel.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        problem = {"description": "A problem.", "content": {"application/problem+json": {"schema": {"$ref": _REF}}}}
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
        app.openapi_schema = document
        return document

    return openapi
