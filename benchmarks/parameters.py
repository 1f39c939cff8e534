"""Parameters of the networks of paper 003, beside the numbers that it prints (tables 1 and 6, section 5.2).

    python -m benchmarks.parameters

Counted as trained, classifier included: for the 1,041 identities of MSMT17, which tables 1 and 6 are about, and for
the 751 of Market-1501, for which the reproduction of MGN is written. Nothing is allocated.

The text leaves open the cells' widths, the feature's size and the classifier's hidden layers. On ResNet-50 the cells
have the widths of the authors' MGN with PTL, the only ones published; those on DenseNet-161 follow the same rule. The
feature's size (512) was chosen by what that leaves of 35 and 42 million, the classifier's hidden layers (half as wide
as the feature) by 28 and 32 million. 66 million are those of the reproduction of MGN that the paper names; with
reductions and classifiers as Wang et al. write, MGN would have 74.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from reid_core.networks.mgn import MgnNetwork, ProgressiveMgnNetwork
from reid_core.networks.progressive import PlainNetwork, ProgressiveNetwork
from service.papers.paper_003 import PARAMETERS

MSMT17, MARKET = 1041, 751

ROWS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-50": lambda: PlainNetwork("resnet50", MSMT17, last_stride=2),
    "ResNet-50+PTL": lambda: ProgressiveNetwork("resnet50", MSMT17, last_stride=2),
    "DenseNet-161": lambda: PlainNetwork("densenet161", MSMT17, last_stride=2),
    "DenseNet-161+PTL": lambda: ProgressiveNetwork("densenet161", MSMT17, last_stride=2),
    "MGN (reproduced)": lambda: MgnNetwork("resnet50", MARKET),
    "MGN+PTL": lambda: ProgressiveMgnNetwork("resnet50", MARKET),
}
PARTS = ("backbone", "branch", "fusion", "classifier", "head")


def count(module: nn.Module) -> float:
    """Million parameters."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def build(network: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return network()


def main() -> None:
    print(f"{'millions':<20}" + "".join(f"{part:>12}" for part in PARTS) + f"{'all':>9}{'paper':>8}{'off by':>9}")
    for name, make in ROWS.items():
        network, paper = build(make), PARAMETERS.get(name)
        parts = dict(network.named_children())
        counts = "".join(f"{count(parts[part]):>12.2f}" if part in parts else f"{'':>12}" for part in PARTS)
        beside = f"{paper:>8.0f}{count(network) / paper - 1:>+9.1%}" if paper else f"{'-':>8}"
        print(f"{name:<20}{counts}{count(network):>9.2f}{beside}")


if __name__ == "__main__":
    main()
