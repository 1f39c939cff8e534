"""The training methods, and the layouts of data sets that registration reads."""

from __future__ import annotations

from fastapi import APIRouter

from reid_core.data.formats import describe_formats
from service.api.dependencies import require
from service.api.schemas import FormatAnswer, MethodAnswer
from service.errors import not_found
from service.schemas import Listing

router = APIRouter(tags=["methods"])


@router.get("/methods", dependencies=[require("read")])
def list_methods() -> Listing[MethodAnswer]:
    """Every training method, its paper and its settings with the paper's values as defaults."""
    from reid_core.methods import METHODS  # brings PyTorch

    return Listing(items=[MethodAnswer.of(method) for method in METHODS.values()], next_cursor=None)


@router.get("/methods/{name}", dependencies=[require("read")])
def read_method(name: str) -> MethodAnswer:
    """One training method, by its name."""
    from reid_core.methods import METHODS

    if name not in METHODS:
        raise not_found("method", name, known=list(METHODS))
    return MethodAnswer.of(METHODS[name])


@router.get("/dataset-formats", dependencies=[require("read")])
def list_dataset_formats() -> Listing[FormatAnswer]:
    """The layouts of files that registration understands, each drawn in words."""
    return Listing(items=[FormatAnswer(**described) for described in describe_formats()], next_cursor=None)
