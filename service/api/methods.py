"""What can be trained, and what data can look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from reid_core.data.formats import describe_formats
from service.api.dependencies import require
from service.errors import not_found

if TYPE_CHECKING:
    from reid_core.methods.method import Method

router = APIRouter(tags=["methods"])


@router.get("/methods", dependencies=[require("read")])
def list_methods() -> dict[str, Any]:
    """Every training method, its paper and its settings with the paper's values as defaults."""
    from reid_core.methods import METHODS  # brings PyTorch

    return {"items": [_as_json(method) for method in METHODS.values()], "next_cursor": None}


@router.get("/methods/{name}", dependencies=[require("read")])
def read_method(name: str) -> dict[str, Any]:
    """One training method, by its name."""
    from reid_core.methods import METHODS

    if name not in METHODS:
        raise not_found("method", name, known=list(METHODS))
    return _as_json(METHODS[name])


@router.get("/dataset-formats", dependencies=[require("read")])
def list_dataset_formats() -> dict[str, Any]:
    """The layouts of files that registration understands, each drawn in words."""
    return {"items": describe_formats(), "next_cursor": None}


def _as_json(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "paper": method.paper,
        "summary": method.summary,
        "settings_schema": method.settings_schema(),
    }
