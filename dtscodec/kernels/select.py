"""Which backend serves a device."""

import functools

import torch

from dtscodec.kernels.backend import Backend


def backend_for(device: torch.device) -> Backend:
    """The fastest backend that is here for a device."""
    return _backend(device)


@functools.cache
def _backend(device: torch.device) -> Backend:
    if device.type == "cpu":
        from dtscodec.kernels.cpu import Cpu

        return Cpu()
    if device.type == "cuda" and _triton_serves(device):
        from dtscodec.kernels.triton.backend import Triton

        return Triton()
    from dtscodec.kernels.reference import Reference

    return Reference()


def _triton_serves(device: torch.device) -> bool:
    """Whether our Triton kernels run: on NVIDIA's Ampere and newer, by a Triton that has the precision they need."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton
    except ImportError:
        return False
    return tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6)
