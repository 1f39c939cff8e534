"""The ways in: `GET /` for programs and people, and `/docs`, the API's page, for which a browser asks nobody but us."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from service.api.dependencies import prefix_of
from service.api.schemas import EntranceAnswer
from service.api.version import read_version
from service.errors import not_found

router = APIRouter(tags=["service"])
page = APIRouter(prefix="/docs", include_in_schema=False)
"""At the root only; its files are Swagger UI's, from the package `fastapi-swagger`."""

_LISTS = ("datasets", "jobs", "methods", "models", "galleries", "search", "evaluations", "problems", "version")
_FILES = Path(str(files("fastapi_swagger"))) / "resources"
_SCRIPT, _STYLE, _ICON = "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'"
)


@router.get("/", response_model=EntranceAnswer, responses={307: {"description": "For browsers: the API's page."}})
def read_entrance(request: Request) -> EntranceAnswer | RedirectResponse:
    """List the links to go on from, for programs; browsers are sent to the API's page."""
    prefix, root = prefix_of(request), request.scope.get("root_path", "")
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{root}/docs")
    links = {name: f"{prefix}/{name}" for name in _LISTS}
    links |= {"ready": f"{prefix}/healthz/ready", "docs": f"{root}/docs", "openapi": f"{root}/openapi.json"}
    return EntranceAnswer(title=request.app.title, **dict(read_version()), links=links)


@page.get("")
def show_page(request: Request) -> HTMLResponse:
    """Every operation, to be tried out with a key."""
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        title=request.app.title,
        openapi_url=f"{root}/openapi.json",
        swagger_js_url=f"{root}/docs/{_SCRIPT}",
        swagger_css_url=f"{root}/docs/{_STYLE}",
        swagger_favicon_url=f"{root}/docs/{_ICON}",
        swagger_ui_parameters={"validatorUrl": None},  # which would be sent our address
    )
    page.headers["Content-Security-Policy"] = _POLICY
    return page


@page.get("/{name}")
def read_page_file(name: str) -> FileResponse:
    """Serves a file of the page."""
    if name not in (_SCRIPT, _STYLE, _ICON):
        raise not_found("file of this page", name)
    return FileResponse(_FILES / name, headers={"Cache-Control": "public, max-age=86400"})
