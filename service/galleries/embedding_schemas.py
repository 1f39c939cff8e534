"""The answers of routes that give and take embeddings."""

from __future__ import annotations

from pydantic import Field

from service.schemas import Answer, Omittable, ProblemAnswer, example


class EmbeddedImage(Answer):
    """The embedding of an uploaded image, of unit length, or why there is none."""

    filename: str
    embedding: Omittable[list[float]] = None
    problem: Omittable[ProblemAnswer] = None


class EmbeddingsAnswer(Answer):
    """The embeddings of images in the order in which they were sent."""

    model: str
    size: int = Field(description="numbers of an embedding")
    items: list[EmbeddedImage]


class EmbeddingsAdded(Answer):
    """The rows of a file that were added to a gallery."""

    model_config = example(
        gallery="gal_01jb2c3d4e5f6g7h8j9k0m1n2p",
        added=1000,
        skipped=0,
        replaced=0,
        rescaled=0,
        revision=8,
        note="These images have no picture and no local features: they are found, not shown, and not matched.",
    )

    gallery: str
    added: int
    skipped: int = Field(description="rows left out because of their external_id")
    replaced: int = Field(description="images erased, in whose place rows came")
    rescaled: int = Field(description="rows that were not of unit length and are now")
    revision: int
    note: str
