"""Every training method by name."""

from __future__ import annotations

from reid_core.errors import CoreError
from reid_core.methods import bnneck, distillation, mgn, ptl, pyramid, qaconv
from reid_core.methods.method import Method

METHODS: dict[str, Method] = {
    "bnneck": bnneck.BNNECK,
    "bnneck-camera": bnneck.BNNECK_CAMERA,
    "qaconv": qaconv.QACONV,
    "qaconv-pk": qaconv.QACONV_PK,
    "qaconv-gs": qaconv.QACONV_GS,
    "pyramid": pyramid.PYRAMID,
    "finetune-resnet50": ptl.FINETUNE_RESNET50,
    "finetune-densenet161": ptl.FINETUNE_DENSENET161,
    "ptl-resnet50": ptl.PTL_RESNET50,
    "ptl-densenet161": ptl.PTL_DENSENET161,
    "mgn": mgn.MGN,
    "ptl-mgn": mgn.PTL_MGN,
    "std": distillation.STD,
}


class UnknownMethod(CoreError):
    slug = "unknown-method"


def find_method(name: str) -> Method:
    """The method of that name; `UnknownMethod` lists the known ones."""
    if name not in METHODS:
        raise UnknownMethod(f"There is no method {name!r}.", hint=f"Known methods: {', '.join(METHODS)}.")
    return METHODS[name]


def matches_locally(name: str) -> bool:
    """True if models of that method match pairs by local features; False of one that is not trained here."""
    return name in METHODS and METHODS[name].matching_head is not None
