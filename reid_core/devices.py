"""The devices of this machine, what they can do, and the arithmetic that a network runs in on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from reid_core.errors import Fault, SettingsError

if TYPE_CHECKING:  # these bring torchvision, which searches do without
    from reid_core.backbones import GlobalBackboneName
    from reid_core.settings import Precision

_NARROW = 32
"""Up to this width a network of stride 32 ends in a map of one column. What computes it from two, oneDNN's bf16
convolution for AMX with stride 2 (in torch 2.13), reads memory that nobody wrote: numbers as large as 1e38, or NaN.
"""


def resolve_device(name: str) -> torch.device:
    """Returns the device of that name; "auto" is CUDA where there is one.

    Raises:
        SettingsError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are served")
        if device.type == "cuda":
            torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError) as error:
        message = f"device {name!r} cannot be used here: {str(error).splitlines()[0]}"
        raise SettingsError(
            f"{message[0].upper()}{message[1:]}.",
            faults=[Fault("/device", "no-such-device", message)],
            hint=f"Use auto, cpu or one of {torch.cuda.device_count()} cuda devices.",
        ) from error
    return device


def has_bf16_units() -> bool:
    """True where this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def resolve_dtype(precision: Precision, device: torch.device, backbone: GlobalBackboneName, width: int) -> torch.dtype:
    """Returns the dtype of the forward pass on images of `width` pixels: float32, or what autocast uses.

    "auto" takes bf16 on CUDA (fp16 on cards without it) and on CPUs with AMX or AVX512-BF16; there depthwise
    backbones stay in fp32, which is faster, and images of up to 32 pixels, which come out wrong in bf16.

    Raises:
        SettingsError: the precision that is named is not to be had on this device, or not for images so narrow.
    """
    from reid_core.backbones import DEPTHWISE

    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "fp16" and device.type != "cuda":
        message = "precision fp16 needs a CUDA device"
        raise SettingsError(
            f"{message.capitalize()}.", faults=[Fault("/precision", "needs-cuda", message)], hint="Use auto or fp32."
        )
    wrong_in_bf16 = device.type == "cpu" and width <= _NARROW and has_bf16_units()
    if precision == "bf16" and wrong_in_bf16:
        message = f"precision bf16 gives wrong numbers on this processor for images {width} pixels wide"
        raise SettingsError(
            f"{message.capitalize()}.",
            faults=[Fault("/precision", "too-narrow", message)],
            hint=f"Use auto or fp32, or images wider than {_NARROW} pixels.",
        )
    if precision != "auto":
        return named[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    fast = has_bf16_units() and backbone not in DEPTHWISE
    return torch.bfloat16 if fast and not wrong_in_bf16 else torch.float32
