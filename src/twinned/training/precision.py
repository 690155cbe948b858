"""Choice between float32 and bfloat16."""

from __future__ import annotations

import torch

from . import distributed


def bfloat16_is_faster(device: torch.device) -> bool:
    """Return True if the processor computes in bfloat16 natively, and so faster than in float32.

    CPUs need AVX512-BF16 or AMX, GPUs CUDA with compute capability 8.0. On an AMD EPYC with AVX512-BF16,
    forward and backward passes of conv4_wide and resnet are 1.8 to 3.4 times as fast, and those of
    EfficientNet-Lite0 1.1 times. The answer depends on the processor alone, so repeated runs on a machine use
    the same precision. The first process decides.

    Args:
        device: Device of the network.
    """
    return distributed.broadcast_from_rank0(lambda: _is_native(device.type))


def _is_native(device_type: str) -> bool:
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of PyTorch do not have the function; with them CPUs train in float32.
    if device_type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
