"""Marks of tests that need an ability of the processor."""

from __future__ import annotations

import pytest
import torch

CAPABILITY = torch.backends.cpu.get_cpu_capability()
needs_avx2 = pytest.mark.skipif(CAPABILITY not in ("AVX2", "AVX512"), reason="the CPU has no AVX2")
INT16 = pytest.param("int16", marks=needs_avx2)
"""A kind of products, as a parameter of tests."""
