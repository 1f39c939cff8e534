"""The choice of the model whose local features a gallery keeps for re-ranking, and of how it keeps them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from reid_core.methods import METHODS, matches_locally
from reid_core.model import read_manifest
from service.db.lookup import find
from service.db.tables import JsonObject, Model
from service.errors import invalid_request
from service.galleries.schemas import GalleryBody
from service.settings import Settings

_NAMED_MODELS = 5


def choose_reranker(
    session: Session, settings: Settings, model: Model, body: GalleryBody
) -> tuple[Model | None, JsonObject | None]:
    """The re-ranker of a new gallery of `model`, and how its maps are kept ({dtype, shape}); None, None without one.

    Raises:
        Problem: 404 for an unknown re-ranker, 422 for one that does not match locally or for maps that cannot be.
        WeightsError: the re-ranker's manifest cannot be read.
    """
    if body.maps == "none":
        if body.reranker is not None:
            raise invalid_request(
                "/maps", "needs-maps", "a re-ranker reads maps, but maps is 'none'", hint="Leave one of them out."
            )
        return None, None
    reranker = model if body.reranker is None else find(session, Model, body.reranker)
    shape = _map_shape(settings, reranker)
    if shape is not None:
        return reranker, {"dtype": body.maps or "float16", "shape": list(shape)}
    if body.reranker is not None or body.maps is not None:
        pointer = "/maps" if body.reranker is None else "/reranker"
        message = f"model {reranker.name!r} cannot re-rank: its method {reranker.method!r} makes no local feature maps"
        raise invalid_request(pointer, "cannot-rerank", message, hint=_ways_out(session))
    return None, None


def _map_shape(settings: Settings, model: Model) -> tuple[int, int, int] | None:
    return read_manifest(settings.models_dir / model.id).map_shape if matches_locally(model.method) else None


def _able_methods() -> list[str]:
    return list(filter(matches_locally, METHODS))


def _ways_out(session: Session) -> str:
    able = select(Model.name).where(Model.method.in_(_able_methods())).order_by(Model.id.desc()).limit(_NAMED_MODELS)
    names = ", ".join(repr(name) for name in session.scalars(able))
    return f"Name as reranker one of {names}." if names else f"Train a model by {' or '.join(_able_methods())}."
