"""Base + pack -> a model of transformers, one tensor at a time."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.torch_dtypes import torch_form
from dtscodec.decoding.decode import decode
from dtscodec.decoding.decoded import Decoded
from dtscodec.errors import CheckpointError, Remedy
from dtscodec.evaluation.transformers_library import import_transformers
from dtscodec.evaluation.weight_loading import load_weights, model_class_of, read_config
from dtscodec.packs.pack import PackSource

CONFIGURATIONS = ("config.json", "generation_config.json")


def from_pretrained(
    base: "Source | Base | None",
    pack: PackSource,
    *,
    model_class: Any = None,
    config: Any = None,
    dtype: torch.dtype | None = None,
    device_map: Any = None,
    **how: Any,
) -> Any:
    """Load the fine-tune that a pack stands for as a model of transformers.

    Weights are rebuilt while they are loaded, one tensor at a time: no more memory is taken than for the model itself
    and a few tensors. (Extra `dtscodec[transformers]`.)

    Parameters
    ----------
    base : path, mapping of tensors, Base, or None
        The base; None where the index beside the pack names it.
    pack : path, bytes or Pack
    model_class : type, optional
        By default what the fine-tune's configuration names first under `architectures`.
    config : transformers.PreTrainedConfig, optional
        By default the fine-tune's own: it travels with a pack that was made from model directories.
    dtype : torch.dtype, optional
        Of the weights; by default what the configuration says.
    device_map : str or dict, optional
        As transformers has it; needs the package accelerate.
    **how
        More options of `from_pretrained` of transformers.

    Returns
    -------
    transformers.PreTrainedModel

    Raises
    ------
    CheckpointError
        There is no configuration, or the weights are not those of its model.
    FormatError, BaseMismatchError
        As for `dtscodec.decode`.
    BackendError
        The package transformers is not there.
    """
    library = import_transformers()
    with decode(pack, base, whole=True) as decoded, tempfile.TemporaryDirectory() as folder:
        files = _write_configurations(decoded, Path(folder))
        where = str(decoded.pack.path or "pack")
        if config is None:
            if "config.json" not in files:
                detail = "expected a pack made from model directories, got one without config.json"
                raise CheckpointError(f"{where}: {detail}", Remedy("give {config}"))
            config = read_config(Path(folder))
        kind = model_class or model_class_of(config, where, Remedy("give {model_class}"))
        state = {name: _Lazy(decoded, name) for name in decoded}
        chosen = dtype or getattr(config, "dtype", None)
        remedy = Remedy("give {model_class}, or {config}")
        model = load_weights(kind, config, state, where, remedy, dtype=chosen, device_map=device_map, **how)
        decoded.check_base()
        if "generation_config.json" in files and model.can_generate():
            model.generation_config = library.GenerationConfig.from_pretrained(folder)
        return model


class _Lazy:
    """A tensor that is rebuilt when it is sliced: what transformers asks of a checkpoint's tensors."""

    def __init__(self, decoded: Decoded, name: str) -> None:
        self._decoded, self._name = decoded, name
        self.dtype, shape = torch_form(decoded.spec(name))
        self.shape = torch.Size(shape)

    def __getitem__(self, index: Any) -> Tensor:
        return self._decoded[self._name][index]

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self._decoded.spec(self._name).dtype

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point


def _write_configurations(decoded: Decoded, folder: Path) -> set[str]:
    """Put the configurations that travel into a folder of their own; their names."""
    found = {name: content for name, content in decoded.files().items() if name in CONFIGURATIONS}
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return set(found)
