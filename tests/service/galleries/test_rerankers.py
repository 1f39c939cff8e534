"""The model that re-ranks a gallery, its local features, and the cost of making them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from torch import Tensor

from reid_core.retrieval.encoder import Encoder, Encoding
from service.db.tables import Dataset, Gallery
from service.galleries.encoding import gallery_encoder, read_ahead
from service.settings import Settings
from tests.service.galleries.conftest import MATCHER_ID, MODEL_ID
from tests.service.galleries.stock import MAP_SHAPE, MATCHER_SIZE, SIZE, encoder_for, make_gallery

pytestmark = pytest.mark.usefixtures("model", "matcher")


def test_a_gallery_is_re_ranked_by_its_own_model_where_that_can_and_no_other_is_named(client: httpx.Client) -> None:
    shapes = {"shape": list(MAP_SHAPE)}
    own = make_gallery(client, name="own", model="matcher")
    assert (own["reranker"], own["statistics"]) == (MATCHER_ID, None)
    assert own["maps"] == {"dtype": "float16", **shapes, "bytes_per_picture": 128}
    other = make_gallery(client, name="other", model="tiny", reranker="matcher", maps="int8")
    assert (other["model"], other["reranker"]) == (MODEL_ID, MATCHER_ID)
    assert other["maps"] == {"dtype": "int8", **shapes, "bytes_per_picture": 64}
    plain, none = make_gallery(client, name="plain"), make_gallery(client, name="none", model="matcher", maps="none")
    assert [(gallery["reranker"], gallery["maps"]) for gallery in (plain, none)] == [(None, None)] * 2
    assert client.get("/galleries/other").json() == other


REFUSED = [
    ({"reranker": "tiny"}, "/reranker", "'bnneck'"),
    ({"maps": "int8"}, "/maps", "'bnneck'"),
    ({"reranker": "matcher", "maps": "none"}, "/maps", "'none'"),
    ({"maps": "float32"}, "/maps", "int8"),
]


@pytest.mark.parametrize(("fields", "pointer", "said"), REFUSED)
def test_maps_that_cannot_be_are_refused(client: httpx.Client, fields: dict[str, str], pointer: str, said: str) -> None:
    answer = client.post("/galleries", json={"name": "hall", "model": "tiny", **fields})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert said in answer.json()["errors"][0]["message"]
    assert client.get("/galleries").json()["items"] == []


def test_a_refusal_names_the_models_that_can_re_rank_or_the_methods_that_make_one(client: httpx.Client) -> None:
    body = {"name": "hall", "model": "tiny", "reranker": "tiny"}
    assert client.post("/galleries", json=body).json()["hint"] == "Name as reranker one of 'matcher'."
    assert client.delete("/models/matcher").status_code == 204
    assert "qaconv" in client.post("/galleries", json=body).json()["hint"]


def test_a_re_ranker_cannot_be_deleted_while_a_gallery_needs_it(client: httpx.Client) -> None:
    make_gallery(client, reranker="matcher")
    answer = client.delete("/models/matcher")
    assert (answer.status_code, "'hall'" in answer.json()["detail"]) == (409, True)


class Counting:
    """An encoder that counts the passes through its network."""

    def __init__(self, encoder: Encoder) -> None:
        self.prepare = encoder.prepare
        self.encoder = encoder
        self.passes = 0

    def encode_prepared(self, images: Tensor, *, with_maps: bool = False) -> Encoding:
        self.passes += 1
        return self.encoder.encode_prepared(images, with_maps=with_maps)


@pytest.mark.parametrize(("model_id", "size"), [(MATCHER_ID, MATCHER_SIZE), (MODEL_ID, SIZE)])
def test_vector_and_map_come_from_one_pass_where_one_model_makes_both(
    settings: Settings, dataset: Dataset, model_id: str, size: int
) -> None:
    networks = {key: Counting(encoder_for(settings, key)) for key in (MATCHER_ID, MODEL_ID)}
    encoder = gallery_encoder(Gallery(model_id=model_id, reranker_id=MATCHER_ID), networks.__getitem__)
    paths = sorted(Path(dataset.path).iterdir())[:3]
    ((_, read),) = read_ahead([(paths, paths)], encoder, settings)
    vectors, maps = encoder.encode([one.prepared for one in read if one is not None])
    assert (vectors.shape, maps.shape) == ((3, size), (3, 8, MAP_SHAPE[2]))
    assert [network.passes for network in networks.values()] == [1, int(model_id == MODEL_ID)]
