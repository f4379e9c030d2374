"""Selection of the backend for a device."""

import functools

import torch

from dtscodec.kernels.backend import Backend


def backend_for(device: torch.device) -> Backend:
    """Return the fastest backend that is available for a device."""
    return _backend(device)


@functools.cache
def _backend(device: torch.device) -> Backend:
    if device.type == "cpu":
        from dtscodec.kernels.cpu import Cpu

        return Cpu()
    if device.type == "cuda" and _triton_runs_on(device):
        from dtscodec.kernels.triton.triton_backend import Triton

        return Triton()
    from dtscodec.kernels.reference import Reference

    return Reference()


def _triton_runs_on(device: torch.device) -> bool:
    """Return whether the Triton kernels run: on NVIDIA Ampere and newer, with a Triton of the needed precision."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        import triton
    except ImportError:
        return False
    return tuple(map(int, triton.__version__.split(".")[:2])) >= (3, 6)
