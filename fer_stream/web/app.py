"""The FastAPI application: routes, security middleware, error handlers and the web page.

browser, program ─▶ SecurityMiddleware ─┬─▶ /api/v1/sources, /live    sources.py, events.py   ◀─ ResultStore
                                        ├─▶ /api/v1/jobs              jobs.py, uploads.py     ◀─ Jobs
                                        ├─▶ /healthz, /readyz
                                        └─▶ /                         static/
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from fer_stream import __version__
from fer_stream.web import jobs as job_routes
from fer_stream.web import sources
from fer_stream.web.schemas import API, FrameEvent, HealthModel, ProblemModel, on_http_error, on_validation_error
from fer_stream.web.security import SecurityMiddleware
from fer_stream.web.state import State, WebState

if TYPE_CHECKING:
    from fer_stream.config.live import LiveSettings
    from fer_stream.jobs.job import Jobs
    from fer_stream.metrics import Metrics
    from fer_stream.store.protocol import ResultStore

_STATIC_DIR = Path(__file__).parent / "static"

_REF = "#/components/schemas/{model}"


def create_app(
    store: ResultStore,
    jobs: Jobs,
    settings: LiveSettings,
    *,
    is_shown: Callable[[str], bool],
    metrics: Metrics,
    stop: threading.Event,
) -> FastAPI:
    """Create the application. Setting `stop` ends all live streams, which would otherwise delay the shutdown.

    Sources of the store for which `is_shown` returns False do not exist for clients.
    """
    app = _create_routes()
    app.state.web = WebState(store, jobs, settings, is_shown=is_shown, metrics=metrics, stop=stop)
    app.mount("/", StaticFiles(directory=_STATIC_DIR, html=True), name="page")
    app.add_middleware(SecurityMiddleware, settings=settings.web, metrics=metrics)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    return app


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document. Needs neither a store nor settings."""
    return _create_routes().openapi()


def _create_routes() -> FastAPI:
    app = FastAPI(
        title="fer-stream",
        version=__version__,
        description="Per-person emotion timelines from cameras and recorded files. Times are Unix seconds; labels of "
        "live events are provisional.",
        openapi_url=f"{API}/openapi.json",
        # Swagger UI and ReDoc load their scripts from a CDN, which the Content-Security-Policy forbids.
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(sources.router)
    app.include_router(job_routes.router)

    @app.get("/healthz", tags=["health"])
    async def healthz() -> HealthModel:
        """Check that the process responds, even if all worker threads wait for the store."""
        return HealthModel()

    @app.get("/readyz", tags=["health"])
    def readyz(state: State) -> HealthModel:
        """Check that the store responds as well."""
        state.overview.snapshot()
        return HealthModel()

    app.openapi = custom_openapi(app)  # type: ignore[method-assign]
    return app


def custom_openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a function that builds the OpenAPI document with problems in place of FastAPI's validation errors.

    The schemas of live events are added.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemModel"] = ProblemModel.model_json_schema()
        # OpenAPI 3.1 cannot describe the data of single events, so no route refers to this schema.
        frame_event = TypeAdapter(FrameEvent).json_schema(ref_template=_REF)
        schemas |= frame_event.pop("$defs") | {"FrameEvent": frame_event}
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        content = {"application/problem+json": {"schema": {"$ref": _REF.format(model="ProblemModel")}}}
        problem = {"description": "An error (RFC 9457).", "content": content}
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = problem
        app.openapi_schema = document
        return document

    return openapi
