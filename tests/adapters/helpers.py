"""Real adapters: made with PEFT on small models, loaded with PEFT, and decoded by us."""

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import dtscodec
from dtscodec.adapters.importing.import_adapter import ImportReport
from tests import models

TARGETS = {
    "bert": ["query", "value", "intermediate.dense"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
}
"""Architectures, and layers that adapters of them change."""


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings of PEFT and transformers, except that keys of an adapter do not fit the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*adapter keys.*")
        yield


class Trained:
    """A base on disk, and an adapter of it on disk with a delta that is not zero.

    Parameters
    ----------
    folder : Path
        Where both are saved.
    base : transformers.PreTrainedModel
        The base.
    inputs : dict of str to Tensor
        Inputs for the model.
    **config
        Options of `peft.LoraConfig`.
    """

    def __init__(self, folder: Path, base: Any, inputs: dict[str, Tensor], **config: Any) -> None:
        self.folder, self.base, self.inputs = folder, base.eval(), inputs
        self.base_path = models.save(base, folder / "base")
        random = torch.Generator().manual_seed(7)
        with quiet():
            self.model = peft.get_peft_model(
                copy.deepcopy(base), peft.LoraConfig(**({"r": 4, "lora_alpha": 8} | config))
            )
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    if "lora_" in name or parameter.requires_grad:
                        parameter.add_(0.05 * torch.randn(parameter.shape, generator=random))
            self.path = folder / "adapter"
            self.model.eval().save_pretrained(str(self.path))

    def outputs(self) -> Tensor:
        return models.outputs(self.model, self.inputs)

    def unchanged(self) -> Tensor:
        return models.outputs(self.base, self.inputs)

    def merged(self) -> dict[str, Tensor]:
        """Return the base with the adapter merged into it by PEFT."""
        with quiet():
            state: dict[str, Tensor] = copy.deepcopy(self.model).merge_and_unload().state_dict()
        return state

    def imported(self, **options: Any) -> ImportReport:
        return dtscodec.import_adapter(self.path, self.base_path, self.folder / "pack", force=True, **options)

    def change_config(self, **changes: Any) -> None:
        path = self.path / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def change_tensors(self, change: Callable[[dict[str, Tensor]], object]) -> None:
        path = self.path / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)


def train(name: str, folder: Path, **config: Any) -> Trained:
    """Make an adapter of one of the architectures."""
    architecture = models.ARCHITECTURES[name]
    torch.manual_seed(0)
    config = {"target_modules": TARGETS.get(name), "fan_in_fan_out": name == "gpt2"} | config
    return Trained(folder, architecture.build(), architecture.inputs(), **config)


def with_adapter(base: Any, path: Path) -> Any:
    """Return a copy of a base with an adapter that PEFT loads."""
    with quiet():
        return peft.PeftModel.from_pretrained(copy.deepcopy(base), path).eval()


def distance(ours: Tensor, theirs: Tensor, unchanged: Tensor) -> float:
    """Return the distance of two outputs, relative to that of the fine-tune's outputs from the base's."""
    return float((ours - theirs).norm() / (theirs - unchanged).norm())
