"""Settings of a training run: typed, frozen, checked where text comes in.

Every method's settings derive from `TrainingSettings`. The numbers of a paper are the defaults in that paper's own
file; nothing here has a default that a paper chose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reid_core.backbones import GlobalBackboneName
from reid_core.errors import Fault, SettingsError
from reid_core.merging import merge

Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Part(BaseModel):
    """A group of settings: unknown names are refused, values are checked and then fixed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageSize(Part):
    """Height and width in pixels that every image is resized to."""

    height: int = Field(ge=32, le=1024)
    width: int = Field(ge=16, le=1024)


class IdentityBatch(Part):
    """A batch of P identities with K images each; `size` P x K may be given instead of P."""

    identities: int = Field(ge=2, le=512)
    images_per_identity: int = Field(ge=1, le=64)
    size: int | None = Field(default=None, ge=2, description="sets identities to size / images_per_identity")

    @model_validator(mode="before")
    @classmethod
    def _identities_of_size(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        size, each = values.get("size"), values.get("images_per_identity")
        if not isinstance(size, int) or not isinstance(each, int) or each < 1:
            return values
        if size % each:
            raise ValueError(f"a batch of size {size} cannot be divided into groups of {each} images")
        # Not kept: it would go before the identities of a later change.
        return {**values, "identities": size // each, "size": None}

    @property
    def num_images(self) -> int:
        return self.identities * self.images_per_identity


class Adaptive(Part):
    """Decay once, and end the run half as many epochs later, when the loss has fallen (Liao and Shao 2022)."""

    loss_ratio: float = Field(gt=0, lt=1, description="of an epoch's mean loss to the second epoch's")
    extension: float = Field(ge=0, le=10, description="epochs after the decay, as a share of those before it")


class RandomBatch(Part):
    """A batch of images drawn at random, whoever they show."""

    size: int = Field(ge=2, le=4096)

    @property
    def num_images(self) -> int:
        return self.size


class Schedule(Part):
    """Learning rate over time. Points in time are fractions of the run, so that a shorter run keeps its shape."""

    epochs: int = Field(ge=0, le=10_000, description="0 saves the network as initialised")
    base_lr: float = Field(gt=0, le=100)
    warmup: Fraction = Field(description="fraction of the run over which the rate rises linearly to base_lr")
    warmup_start: Fraction = Field(description="the rate at the very start, as a fraction of base_lr")
    decay_at: tuple[Fraction, ...] = Field(description="fractions of the run at which the rate is decayed, rising")
    decay_factor: float = Field(gt=0, le=1)
    shape: Literal["steps", "cosine"] = Field(
        default="steps", description="cosine: falls to 0 along half a cosine after the warm-up, without decay_at"
    )
    adaptive: Adaptive | None = Field(
        default=None, description="instead of decay_at; epochs is then the largest number"
    )

    @model_validator(mode="after")
    def _decays_rise(self) -> Schedule:
        if list(self.decay_at) != sorted(self.decay_at):
            raise ValueError(f"decay_at must rise, got {list(self.decay_at)}")
        return self


class Erasing(Part):
    """Random erasing (Zhong et al. 2020): a rectangle of the image is replaced by the mean colour."""

    probability: Fraction
    area: tuple[Fraction, Fraction] = Field(description="smallest and largest share of the image's area")
    aspect: float = Field(ge=1, description="height / width is drawn from 1 / aspect to aspect")


class ColourJitter(Part):
    """Random changes of colour: each factor is drawn from `low` to `high`, the hue shift from -hue to hue."""

    low: float = Field(gt=0, le=1, description="smallest factor of brightness, contrast and saturation")
    high: float = Field(ge=1, le=10, description="largest factor")
    hue: float = Field(ge=0, le=0.5, description="of the colour circle")


class Augmentation(Part):
    flip: Fraction = Field(description="probability of a horizontal flip")
    padding: int = Field(ge=0, le=256, description="pixels added on every side before a random crop to size")
    erasing: Erasing
    rotation: float = Field(default=0.0, ge=0, le=180, description="largest angle to either side, in degrees")
    jitter: ColourJitter | None = None
    occlusion: Fraction = Field(
        default=0.0,
        description="a white square up to this share of the shorter side is put into every image; 0: none",
    )


class Validation(Part):
    """Training identities held out to draw rank-1 and mAP curves while training; 0 trains on all of them."""

    fraction: float = Field(default=0.0, ge=0, le=0.5)
    every_epochs: int = Field(default=5, ge=1, description="how often; and whether anything is learned")
    keep: Literal["best", "last"] = Field(
        default="last", description="best: the network of the measured epoch with the highest held-out mAP"
    )
    patience: int | None = Field(
        default=None, ge=1, description="end the run after so many measurements without a higher mAP; null: never"
    )

    @property
    def needs_people(self) -> bool:
        """True where the run is decided by people who are held out."""
        return self.keep == "best" or self.patience is not None

    @model_validator(mode="after")
    def _has_people_to_decide_by(self) -> Validation:
        if self.needs_people and self.fraction == 0:
            raise ValueError("keep best and patience need a fraction of identities to hold out, e.g. 0.2")
        return self


class TrainingSettings(Part):
    """The settings that every method takes, beside its own."""

    preset: Literal["paper", "small"] = Field(
        default="paper", description="small: what a run of some hundred steps needs, in place of the paper's values"
    )
    backbone: GlobalBackboneName
    image: ImageSize
    normalisation: Literal["imagenet", "none"] = Field(
        default="imagenet", description="of the input: torchvision's mean and standard deviation, or values from 0 to 1"
    )
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip_average: bool = Field(
        default=False, description="embed the mean of an image and its mirror image; takes twice the time"
    )
    batch: IdentityBatch | RandomBatch
    schedule: Schedule
    augmentation: Augmentation
    freeze_backbone_bn: bool = Field(
        default=False, description="keep the means and variances that the backbone's batch normalisation starts with"
    )
    weight_decay: float = Field(default=5e-4, ge=0, description="L2 penalty: share of a weight added to its gradient")
    gradient_clip: float | None = Field(default=None, gt=0, description="largest gradient norm; null clips nothing")
    precision: Precision = Field(default="auto", description="auto takes bf16 where the device is faster with it")
    validation: Validation = Validation()


S = TypeVar("S", bound=TrainingSettings)


def override(recipe: S, overrides: Mapping[str, Any]) -> S:
    """The recipe with just the named values replaced; partial objects may be given at any depth.

    Raises:
        SettingsError: an unknown name (the known ones are listed) or an impossible value, with JSON pointers.
    """
    known = recipe.model_dump(mode="json")
    merged = merge(known, overrides)
    try:
        return type(recipe).model_validate(merged)
    except ValidationError as error:
        faults = [_fault(problem, known) for problem in error.errors(include_url=False)]
        raise SettingsError(
            f"{len(faults)} setting{'s are' if len(faults) > 1 else ' is'} wrong: {faults[0].message}.",
            faults=faults,
            hint="GET /methods lists every setting with its range.",
        ) from error


def _fault(problem: Any, known: Any) -> Fault:
    path = [str(part) for part in problem["loc"]]
    pointer = "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)
    if problem["type"] == "extra_forbidden":
        for name in path[:-1]:
            known = known[name]
        return Fault(pointer, "unknown-setting", f"unknown setting {'.'.join(path)!r}; known here: {', '.join(known)}")
    return Fault(pointer, problem["type"].replace("_", "-"), f"{'.'.join(path)}: {problem['msg']}")
