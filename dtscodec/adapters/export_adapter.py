"""Pack -> an adapter that PEFT, vLLM and SGLang load: one rank and a scale of 1 for all layers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dtscodec.adapters.export_plan import ExportPlan, LeftOut
from dtscodec.adapters.lora_file import adapter_tensors, write_adapter
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.model_layers import read_model_layers
from dtscodec.adapters.peft_config import settings_document
from dtscodec.adapters.tensor_changes import iter_changes
from dtscodec.adapters.vllm import max_lora_rank, vllm_problems
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.checkpoints.open_inputs import weight_paths
from dtscodec.decoding.decode import decode
from dtscodec.errors import ConfigError, OutputError
from dtscodec.packs.pack import PackSource
from dtscodec.storage.paths import as_path, is_remote

TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForConditionalGeneration": "SEQ_2_SEQ_LM"}
"""PEFT's task of classes whose names end so. For others it would add heads of its own."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Parameters
    ----------
    path : Path
        The adapter's directory.
    model : str
        Class of the model that is to use it.
    rank, modules : int
        Of the adapter: its rank, and how many layers it changes.
    saved : tuple of str
        Modules that it replaces whole (`modules_to_save`).
    adapter_bytes, pack_bytes : int
        Sizes on disk of the adapter's tensors and of the pack.
    cut_off : float
        Share of the delta's squared norm that is lost to the rank.
    left_out : tuple of LeftOut
    vllm_rank : int or None
        vLLM's smallest `max_lora_rank` that accepts it; None if there is none.
    vllm_problems : tuple of str
        Why vLLM does not take it.
    """

    path: Path
    model: str
    rank: int
    modules: int
    saved: tuple[str, ...]
    adapter_bytes: int
    pack_bytes: int
    cut_off: float
    left_out: tuple[LeftOut, ...]
    vllm_rank: int | None
    vllm_problems: tuple[str, ...]

    @property
    def left_out_share(self) -> float:
        """Share of the delta's squared norm in tensors that are left out, as far as it is known."""
        return sum(left.share or 0.0 for left in self.left_out)


def export_adapter(
    pack: PackSource,
    out: str | Path,
    base: "Source | Base | None" = None,
    *,
    model: "nn.Module | str | Path | None" = None,
    rank: int | None = None,
    dtype: torch.dtype = torch.float16,
    base_name_or_path: str | None = None,
    save_modules: bool = False,
    strict: bool = False,
    force: bool = False,
) -> ExportReport:
    """Write an adapter that adds to the base what the pack adds to it, as far as an adapter can.

    Parameters
    ----------
    pack : path, bytes or Pack
    out : path
        The directory to make.
    base : path, mapping of tensors, or Base, optional
        With it the share of tensors that are stored exactly is known. By default that of the index beside the pack.
    model : Module or path, optional
        The model that is to use the adapter, or a directory with its configuration; by default what the configuration
        that travels with the pack describes. Its weights do not matter.
    rank : int, optional
        Of the adapter; the strongest components are kept. By default the smallest `max_lora_rank` of vLLM that all
        components fit.
    dtype : torch.dtype
        float16, bfloat16 or float32.
    base_name_or_path : str, optional
        What the adapter calls its base; by default the repository that the pack names, if any.
    save_modules : bool
        Let modules that a LoRA cannot change, such as new heads and norms, be replaced whole. PEFT only.
    strict : bool
        Refuse to leave out anything.
    force : bool
        Replace a directory that exists.

    Raises
    ------
    EncodeError
        There is nothing that an adapter can carry, something that it cannot and `strict` is set, or the dtype does
        not hold it.
    ConfigError
        A rank below 1, or another dtype.
    CheckpointError, ModelMismatchError
        No model is known, or its names are not the pack's.
    FormatError, BaseMismatchError
        As for `dtscodec.decode`.
    OutputError
        The directory cannot be written, or exists.
    """
    _check_settings(out, rank, dtype)
    out = as_path(out)
    with decode(pack, base) as decoded:
        opened, at_hand = decoded.pack, decoded.base
        layers = read_model_layers(model, opened, at_hand)
        plan = ExportPlan.of(opened.index.tensors, list(iter_changes(opened, at_hand)), layers)
        if save_modules:
            plan.save_modules()
        plan.check(strict)
        chosen = rank or max_lora_rank(plan.largest_rank) or plan.largest_rank
        pairs, lost = plan.pairs(chosen, dtype)
        recorded = opened.summary.base.repo if opened.summary.base else None
        document = _document(plan, pairs, chosen, base_name_or_path or recorded)
        tensors = adapter_tensors(pairs, {name: decoded[ours] for name, ours in plan.whole.items()}, dtype)
        inputs = [opened.path] if opened.path else []
        inputs += weight_paths(out, at_hand.checkpoint) if at_hand else ()
        size = write_adapter(out, document, tensors, force=force, inputs=inputs)
        problems = vllm_problems(document, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return ExportReport(
            path=out,
            model=layers.model,
            rank=chosen,
            modules=len(pairs),
            saved=tuple(plan.saved),
            adapter_bytes=size,
            pack_bytes=opened.size,
            cut_off=lost / plan.square if plan.square else 0.0,
            left_out=tuple(plan.left_out()),
            vllm_rank=None if problems else max_lora_rank(chosen),
            vllm_problems=tuple(problems),
        )


def _check_settings(out: str | Path, rank: int | None, dtype: torch.dtype) -> None:
    if rank is not None and rank < 1:
        raise ConfigError(f"expected a rank of at least 1, got {rank}")
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ConfigError(f"expected float16, bfloat16 or float32, got {dtype}")
    if is_remote(out):
        raise OutputError(f"{out}: expected a local path, since only encode writes to remote storage")


def _document(plan: ExportPlan, pairs: Mapping[str, LoraPair], rank: int, base: str | None) -> dict[str, Any]:
    layers = plan.layers
    return settings_document(
        rank,
        base=base,
        task_type=next((task for end, task in TASKS.items() if layers.model.endswith(end)), None),
        target_modules=target_modules(pairs, layers.modules),
        modules_to_save=plan.saved,
        fan_in_fan_out=any(layers.kinds[module] == "transposed" for module in pairs),
    )


def target_modules(chosen: Collection[str], modules: Collection[str]) -> list[str]:
    """How a configuration names its modules: by the last parts of their names where that means no others.

    >>> target_modules(["0.q", "1.q"], ["0.q", "1.q", "0.k"]), target_modules(["0.q"], ["0.q", "1.q"])
    (['q'], ['0.q'])
    """
    ends = {name.rpartition(".")[2] for name in chosen}
    meant = {name for name in modules if name.rpartition(".")[2] in ends}
    return sorted(ends if meant == set(chosen) else chosen)
