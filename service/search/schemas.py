"""The queries that the search routes take, and their answer."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from reid_core.retrieval.filters import Filters
from service.schemas import Answer, Body, CaptureTime, LabelFilter, Omittable, Pair, Reference, SelfLink, Time, example


class Options(Body):
    """The options of every search."""

    pointer: ClassVar[str] = ""
    """The place of these in the request, for pointers to a wrong one: `/query`, or empty for the body."""

    top_k: int = Field(default=10, ge=1, description="most results; REID_MAX_TOP_K at most")
    rerank: Literal["none", "qaconv", "k_reciprocal"] = "none"
    candidates: int = Field(
        default=100, ge=1, description="how many a re-ranking, or `group_by`, looks at; top_k where that is more"
    )
    offset: int | None = Field(
        default=None, ge=0, description="results before the first; given, also as 0, pages of one revision fit together"
    )
    positive: list[Reference] = Field(
        default_factory=list, description="ids of images of the same person, which move the query towards them"
    )
    negative: list[Reference] = Field(
        default_factory=list, description="ids of images of other people, which move the query away from them"
    )
    group_by: Literal["identity"] | None = Field(default=None, description="persons instead of images: `groups`")
    group_size: int = Field(default=3, ge=1, le=20, description="with group_by: most images of each person")
    camera: list[LabelFilter] = Field(
        default_factory=list, description="only these cameras; empty text: images without a camera"
    )
    exclude_camera: list[LabelFilter] = Field(default_factory=list, description="none of these cameras")
    captured_after: CaptureTime | None = Field(default=None, description="taken then or later")
    captured_before: CaptureTime | None = Field(default=None, description="taken before then")
    min_score: float | None = Field(default=None, description="no results with a lower score, by `rerank` where given")
    min_probability: float | None = Field(
        default=None, gt=0, lt=1, description="a match is at least so probable; asks for a `verdict`"
    )
    far: float | None = Field(
        default=None,
        gt=0,
        le=0.5,
        description="share of people who are not in the gallery that may be taken for a match; asks for a `verdict`",
    )
    explain: bool = Field(
        default=False, description="say which places of the two images match; can be drawn for a while"
    )

    @model_validator(mode="after")
    def _times_in_order(self) -> Options:
        if self.captured_after and self.captured_before and self.captured_after >= self.captured_before:
            raise ValueError("captured_after must be earlier than captured_before")
        return self

    @property
    def filters(self) -> Filters:
        return Filters(
            cameras=tuple(self.camera),
            exclude_cameras=tuple(self.exclude_camera),
            captured_after=self.captured_after,
            captured_before=self.captured_before,
        )

    @property
    def needs_maps(self) -> bool:
        return self.rerank == "qaconv" or self.explain

    @property
    def last(self) -> int:
        """The number of the last result, from 1."""
        return (self.offset or 0) + self.top_k

    @property
    def width(self) -> int:
        """The number of closest images that are looked at before the cut to `top_k`."""
        return self.last if self.rerank == "none" and self.group_by is None else max(self.last, self.candidates)


class StoredQuery(Options):
    """Search by an image of a gallery or a data set."""

    pointer: ClassVar[str] = "/query"

    gallery: Reference
    image_id: Reference
    exclude_self: bool = Field(default=False, description="leave the image itself out")


class ImageParameters(Options):
    """Parameters in the address of a search whose body holds images or an embedding."""

    gallery: Reference | None = None
    fusion: Literal["mean", "max"] = Field(
        default="mean", description="of several images: mean embedding, or best score"
    )


class ImageQuery(ImageParameters):
    """Search by uploaded images of one person."""

    gallery: Reference


class EmbeddingQuery(ImageQuery):
    """Search by an embedding that the gallery's model made."""

    embedding: list[float] = Field(min_length=1, max_length=100_000)


Query = StoredQuery | ImageQuery | EmbeddingQuery


class VerifyQuery(Body):
    """Two images, or one or more of a person and an `identity`; images are files of the form, or named by their ids."""

    pointer: ClassVar[str] = ""

    image_id: list[Reference] = Field(default_factory=list, description="images of galleries or data sets")
    identity: LabelFilter | None = Field(default=None, description="a person of the gallery, with all its images")
    rerank: Literal["none", "qaconv"] = Field(default="none", description="qaconv: two images place by place")
    min_probability: float | None = Field(
        default=None, gt=0, lt=1, description="`same` is at least so probable; one half if left out"
    )


Verdict = Literal["match", "unsure", "unknown"]


class SearchWarning(Answer):
    """A reason not to believe the probabilities of a search, and what to do about it."""

    code: str
    detail: str
    hint: str


class Correspondence(Answer):
    """A place (x, y) of the query, the place of the match that it corresponds to, and their similarity, -1 to 1."""

    query: Pair
    match: Pair
    similarity: float


class MatchLinks(SelfLink):
    """Links of a match, its file and its explanation's drawing; `image` is null where no file is kept."""

    image: str | None
    explanation: Omittable[str] = None


class MatchAnswer(Answer):
    """A result of a search. `score` ranks, larger is better; `retrieval_*` are of the embeddings alone."""

    rank: int
    image_id: str
    score: float
    probability: Omittable[float] = Field(
        default=None, description="that it shows who was searched for, where the model has a calibration"
    )
    retrieval_score: float
    retrieval_rank: int
    identity: str | None
    camera: str | None
    captured_at: Time | None
    external_id: str | None
    query_picture: Omittable[int] = Field(
        default=None, description="with explain: which of the query's images explains it, from 1"
    )
    correspondences: Omittable[list[Correspondence]] = Field(
        default=None, description="with explain: places that match, in pixels of both images"
    )
    links: MatchLinks


class GroupAnswer(Answer):
    """A person of a search by person, or one image that shows nobody in particular: `identity` is null then."""

    rank: int
    identity: str | None
    score: float = Field(description="the mean of its images' scores; with a `rerank`, its best image's")
    probability: Omittable[float] = Field(
        default=None, description="that it is who was searched for, where the model has a calibration of persons"
    )
    results: list[MatchAnswer] = Field(description="its best images; `rank` counts through all groups")


class SearchAnswer(Answer):
    """The results of a search, best first, and what they were found with."""

    model_config = example(
        search_id="search_01jb2c3d4e5f6g7h8j9k0m1n2p",
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        revision=7,
        model="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        reranker=None,
        rerank="none",
        timings_ms={"decode": 1.1, "embed": 18.0, "retrieve": 0.4, "rerank": 0.0, "total": 19.7},
        results=[
            {
                "rank": 1,
                "image_id": "img_01jb2c3d4e5f6g7h8j9k0m1n2p",
                "score": 0.83,
                "retrieval_score": 0.83,
                "retrieval_rank": 1,
                "identity": "0042",
                "camera": "3",
                "captured_at": None,
                "external_id": None,
                "links": {"self": "/galleries/gal_01…/images/img_01…", "image": None},
            }
        ],
    )

    search_id: str
    gallery: str
    revision: int
    model: str
    reranker: str | None
    rerank: str
    verdict: Omittable[Verdict] = Field(default=None, description="of the best result, with min_probability or far")
    prior: Omittable[float] = Field(
        default=None, description="the probability of any image before its score is seen; docs/search.md"
    )
    threshold: Omittable[float] = Field(default=None, description="with far: the score that strangers reach so often")
    warning: Omittable[SearchWarning] = Field(default=None, description="why probabilities are not to be believed")
    timings_ms: dict[str, float]
    results: list[MatchAnswer] = Field(description="empty with `group_by`")
    groups: Omittable[list[GroupAnswer]] = Field(default=None, description="with `group_by`: persons, best first")


class VerifyAnswer(Answer):
    """The outcome of a verification."""

    model_config = example(
        verification_id="search_01jb2c3d4e5f6g7h8j9k0m1n2p",
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        model="mdl_01jb2c3d4e5f6g7h8j9k0m1n2p",
        rerank="none",
        score=0.71,
        probability=0.93,
        verdict="same",
        compared=1,
        timings_ms={"decode": 2.1, "embed": 21.0, "retrieve": 0.1, "rerank": 0.0, "total": 24.1},
    )

    verification_id: str = Field(description="under which the audit log has it")
    gallery: str
    model: str
    rerank: str
    score: float = Field(description="larger is closer; of a person the mean over its images")
    probability: Omittable[float] = Field(
        default=None, description="of the same person, at even odds before; where the model has a calibration"
    )
    verdict: Omittable[Literal["same", "unsure", "different"]] = Field(default=None, description="by `min_probability`")
    warning: Omittable[SearchWarning] = Field(default=None, description="why the probability is not to be believed")
    compared: int = Field(description="images that the first were compared with")
    timings_ms: dict[str, float]
