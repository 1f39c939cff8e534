"""The parameter names of other projects' weights, translated to torchvision's and, for inserted layers, ours.

Understood are torchvision itself (dotted names of old DenseNet files, too), timm, torchreid, fast-reid, the strong
baseline and IBN-Net.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PREFIX = re.compile(
    r"^(?:(?:module|model|encoder|backbone|base)\.)+(?=(?:conv1|bn1|layer\d|features|conv_stem|blocks)\b)"
)
"""Trainers put these before a backbone's names: fast-reid `backbone.`, the strong baseline `base.`."""

_RULES = (
    # torchvision's DenseNet files name `norm.1` what its modules call `norm1`: older names had dots.
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    # IBN-Net, torchreid, fast-reid: the inserted layer of a block, and both halves of a divided one.
    (re.compile(r"\.IN\."), ".instance."),
    (re.compile(r"\.BN\."), ".batch."),
)

_TIMM_BLOCK = re.compile(r"^blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)$")
_TIMM_REPEATS = (1, 2, 3, 4, 3, 3, 1)
"""Blocks of MobileNetV2's stages in timm, which torchvision numbers through."""

_TIMM_FIRST = {"conv_dw": "conv.0.0", "bn1": "conv.0.1", "conv_pw": "conv.1", "bn2": "conv.2"}
_TIMM_OTHERS = {
    "conv_pw": "conv.0.0",
    "bn1": "conv.0.1",
    "conv_dw": "conv.1.0",
    "bn2": "conv.1.1",
    "conv_pwl": "conv.2",
    "bn3": "conv.3",
}
_TIMM_ENDS = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1"}


def translate(names: Iterable[str]) -> dict[str, str]:
    """Maps every given name to its name in our backbones; a name that no rule knows stays as it is."""
    stripped = {name: _PREFIX.sub("", name) for name in names}
    is_timm_mobilenet = any(name.startswith("conv_stem.") for name in stripped.values())
    rename = _from_timm_mobilenet if is_timm_mobilenet else _by_rules
    return {name: rename(bare) for name, bare in stripped.items()}


def _by_rules(name: str) -> str:
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name


def _from_timm_mobilenet(name: str) -> str:
    if match := _TIMM_BLOCK.match(name):
        stage, block, layer, rest = int(match[1]), int(match[2]), match[3], match[4]
        number = 1 + sum(_TIMM_REPEATS[:stage]) + block
        layers = _TIMM_FIRST if stage == 0 else _TIMM_OTHERS
        return f"features.{number}.{layers[layer]}.{rest}" if layer in layers else name
    first, _, rest = name.partition(".")
    return f"{_TIMM_ENDS[first]}.{rest}" if first in _TIMM_ENDS else name
