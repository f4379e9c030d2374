"""Base + pack -> transformers model, decoded one tensor at a time."""

import os
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
from dtscodec.evaluation.transformers_library import (
    concrete_class,
    import_transformers,
    load_weights,
    model_class_of,
    read_config,
)
from dtscodec.packs.pack import PackSource

CONFIGURATIONS = ("config.json", "generation_config.json")
"""Auxiliary files that describe the model."""


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
    """Load a fine-tune from its base and pack as a transformers model.

    Tensors are decoded one at a time while the model loads, so memory is needed for the model and a few tensors only.
    Needs the extra ``dtscodec[transformers]``.

    Parameters
    ----------
    base : path, mapping of tensors, Base, or None
        The base; None for the one that the directory's index names.
    pack : path, bytes or Pack
        The fine-tune's pack.
    model_class : type, optional
        Class of the model, or a class such as `AutoModelForCausalLM` that chooses one by the configuration. By default
        the first one under `architectures` in the configuration.
    config : transformers.PreTrainedConfig or path, optional
        Configuration of the model, or the directory that has it. By default the fine-tune's own, which is in packs made
        from model directories.
    dtype : torch.dtype, optional
        Dtype of the weights; by default the configuration's.
    device_map : str or dict, optional
        As for `from_pretrained` of transformers; needs the package accelerate.
    **how
        Further arguments of `from_pretrained` of transformers.

    Returns
    -------
    transformers.PreTrainedModel
        The model, in evaluation mode.

    Raises
    ------
    CheckpointError
        There is no configuration, or the decoded weights do not fit the model that it describes.
    FormatError, BaseMismatchError
        As for `dtscodec.decode`.
    BackendError
        The package transformers is missing or too old.
    """
    library = import_transformers()
    with decode(pack, base, whole=True) as decoded, tempfile.TemporaryDirectory() as folder:
        files = _write_configurations(decoded, Path(folder))
        where = str(decoded.pack.path or "pack")
        if folders := decoded.pack.index.folders:
            detail = f"expected one model of transformers, got a pipeline with weights of its own in {folders[0]}"
            raise CheckpointError(
                f"{where}: {detail}", Remedy("decode it, and load the directory with its own library")
            )
        if config is None:
            if "config.json" not in files:
                detail = "expected a pack made from model directories, got one without config.json"
                raise CheckpointError(f"{where}: {detail}", Remedy("give {config}"))
            config = read_config(Path(folder), where, Remedy("decode to a directory, and load it with diffusers"))
        elif isinstance(config, str | os.PathLike):
            config = read_config(Path(config))
        remedy = Remedy("give {model_class}")
        kind = concrete_class(model_class, config, where) if model_class else model_class_of(config, where, remedy)
        # transformers slices each tensor when it loads it, which decodes it.
        state = {name: _LazyTensor(decoded, name) for name in decoded}
        named = how.pop("torch_dtype", None)  # The former name of `dtype` in transformers.
        chosen = dtype or named or getattr(config, "dtype", None)
        remedy = Remedy("give {model_class}, or {config}")
        model = load_weights(kind, config, state, where, remedy, dtype=chosen, device_map=device_map, **how)
        # Before the model is handed over (rule H3).
        decoded.check_base()
        if "generation_config.json" in files and model.can_generate():
            model.generation_config = library.GenerationConfig.from_pretrained(folder)
        return model


class _LazyTensor:
    """A tensor that is decoded when it is sliced, with the interface that transformers expects."""

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
    """Write the pack's model configurations into a folder, and return their names."""
    found = {name: content for name, content in decoded.files().items() if name in CONFIGURATIONS}
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return set(found)
