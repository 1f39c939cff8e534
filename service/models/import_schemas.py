"""The bodies of imported models: networks in ONNX files, bundles, weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from service.schemas import Body, Name, Pair, Triple


def _refuse_other_ranges(value: tuple[float, float]) -> tuple[float, float]:
    if value not in ((0, 1), (0, 255)):
        raise PydanticCustomError("unknown-range", "values reach from 0 to 1 or to 255; say [0, 1] or [0, 255]")
    return value


class NetworkInput(Body):
    """The images that an ONNX network takes, in the words of a model's `preprocessing`."""

    height: int = Field(ge=32, le=1024)
    width: int = Field(ge=16, le=1024)
    colour: Literal["RGB", "BGR"] = Field(description="the order of the network's channels, and of mean and std")
    range: Annotated[Pair, AfterValidator(_refuse_other_ranges)] = Field(
        description="the values of black and white, [0, 1] or [0, 255], before mean and std"
    )
    mean: Triple
    std: Triple
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    layout: Literal["NCHW"] = "NCHW"
    flip_average: bool = Field(default=False, description="embed the mean of an image and its mirror image")

    @field_validator("mean")
    @classmethod
    def _within_range(cls, mean: Triple, info: ValidationInfo) -> Triple:
        _, most = info.data.get("range", (0, 255))
        if min(mean) < 0 or max(mean) > most:
            message = "the mean {mean} cannot be that of values from 0 to {most}, which range says"
            raise PydanticCustomError("outside-range", message, {"mean": str(list(mean)), "most": f"{most:g}"})
        return mean

    @field_validator("std")
    @classmethod
    def _possible_in_range(cls, std: Triple, info: ValidationInfo) -> Triple:
        _, most = info.data.get("range", (0, 255))
        if min(std) <= 0 or max(std) > 2 * most:
            message = "the standard deviation {std} cannot be that of values from 0 to {most}, which range says"
            raise PydanticCustomError("outside-range", message, {"std": str(list(std)), "most": f"{most:g}"})
        return std


class NetworkManifest(Body):
    """The use of an ONNX network."""

    input: NetworkInput
    output: Annotated[str, StringConstraints(min_length=1, max_length=1000)] | None = Field(
        default=None, description="the output that is the embedding, (N, D); null: the only one"
    )


class NetworkForm(Body):
    """The fields beside an ONNX file."""

    name: Name | None = Field(default=None, description="unique; made up when left out")
    manifest: NetworkManifest


class BundleForm(Body):
    """The fields beside a bundle."""

    name: Name | None = Field(default=None, description="unique; the name in the bundle when left out")


class WeightsForm(Body):
    """The fields beside a safetensors file."""

    name: Name | None = Field(default=None, description="unique; made up when left out")
    method: str = Field(max_length=100, description="a name from GET /methods")
    settings: dict[str, Any] = Field(default={}, description="what differs from the method's recipe, as in POST /jobs")
