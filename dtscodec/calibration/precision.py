"""Precision of the models in a fit: matrix products in bfloat16 where that loses nothing that the weights have."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dtscodec.evaluation.empty_model import convert
from dtscodec.format.dtypes import TensorSpec


@dataclass(frozen=True, slots=True)
class Precision:
    """Precision of the matrix products of both models.

    In half precision, weights of linear layers and embeddings are held in bfloat16, as the checkpoint has them, and
    autocast multiplies in bfloat16. Hidden states between layers, norms and biases remain in float32.

    Parameters
    ----------
    is_half : bool
        Multiply in bfloat16 rather than float32.
    device : str
        Device of the models.
    """

    is_half: bool
    device: str

    @classmethod
    def for_checkpoints(cls, checkpoints: Iterable[Mapping[str, TensorSpec]], device: str) -> "Precision":
        """Return the precision for checkpoints: half if all matrices are in bfloat16, and the device multiplies them.

        Parameters
        ----------
        checkpoints : iterable of mapping
            Specs of the tensors of the fine-tune and of the decoded model.
        device : str
            Device of the models.
        """
        specs = [spec for checkpoint in checkpoints for spec in checkpoint.values() if len(spec.shape) > 1]
        is_half = all(spec.dtype == "BF16" for spec in specs) and multiplies_bfloat16(device)
        return cls(is_half, device)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to load models in."""
        return torch.bfloat16 if self.is_half else torch.float32

    def prepare(self, model: Any) -> Any:
        """Return a model that was loaded in `dtype`, on the device, with all but its matrices in float32.

        Parameters
        ----------
        model : nn.Module
            The model; changed in place.
        """
        model = model.to(self.device)
        if self.is_half:
            matrices: set[int] = set()
            for module in model.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    matrices.add(id(module.weight))
                if isinstance(module, nn.Embedding):
                    # The sum over layers that begins here is in float32.
                    module.register_forward_hook(_widen)
            for tensor in [*model.parameters(), *model.buffers()]:
                if id(tensor) not in matrices and tensor.is_floating_point():
                    convert(tensor, torch.float32)
        return model

    @contextmanager
    def products(self) -> Iterator[None]:
        """Multiply matrices in this precision while the context lasts."""
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.is_half):
            yield


def _widen(module: nn.Module, arguments: object, rows: Tensor) -> Tensor:
    return rows.float()


def multiplies_bfloat16(device: str) -> bool:
    """Return whether a device multiplies matrices in bfloat16 faster than in float32.

    Parameters
    ----------
    device : str
        Such as ``"cpu"``.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        # Other processors emulate it.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
