"""The devices of this machine, and what they can do."""

from __future__ import annotations

import torch

from reid_core.errors import Fault, SettingsError


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one.

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
    """Whether this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
