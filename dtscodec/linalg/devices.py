"""Where matrices are multiplied: here, or on an accelerator."""

import torch
from torch import Tensor

from dtscodec.errors import BackendError
from dtscodec.linalg.factored_matrix import Factored


def usable_device(device: str | torch.device) -> torch.device:
    """A device by its name.

    Raises
    ------
    BackendError
        There is none, or it holds no data.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise BackendError(f"device '{device}': expected one that torch can use here, got '{reason}'") from error
    if found.type == "meta":
        raise BackendError(f"device '{device}': expected one that holds data, got none that does")
    return found


def product(left: Tensor, right: Tensor | Factored) -> Tensor:
    """The product of a large matrix, wherever it lies, and a thin block, which goes there; it comes back here.

    A matrix that is known by its factors is multiplied factor by factor.
    """
    if isinstance(right, Factored):
        return product(product(left, right.left), right.right)
    device = left.device if right.device.type == "cpu" else right.device
    return (left.to(device) @ right.to(device)).cpu()
