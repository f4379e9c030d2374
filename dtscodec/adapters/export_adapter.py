"""Pack -> LoRA adapter for PEFT, vLLM and SGLang: one rank and a scale of 1 for all layers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dtscodec.adapters.export_plan import ExportPlan, LeftOut, plan_export
from dtscodec.adapters.lora_file import adapter_tensors, check_new_adapter, write_adapter
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.adapters.model_layers import read_model_layers
from dtscodec.adapters.peft_config import settings_document
from dtscodec.adapters.tensor_changes import iter_changes
from dtscodec.adapters.vllm import max_lora_rank, vllm_problems
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import weight_paths
from dtscodec.decoding.decode import decode
from dtscodec.errors import ConfigError, OutputError
from dtscodec.packs.pack import PackSource
from dtscodec.storage.paths import as_path, is_remote

PEFT_TASKS = {"ForCausalLM": "CAUSAL_LM", "LMHeadModel": "CAUSAL_LM", "ForConditionalGeneration": "SEQ_2_SEQ_LM"}
"""PEFT's `task_type` by the end of a model's class name. For other tasks PEFT would add heads of its own."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An adapter that was exported from a pack.

    Parameters
    ----------
    path : Path
        The adapter's directory.
    model : str
        Class name of the model that uses it.
    rank : int
        Rank of the adapter.
    modules : int
        Number of layers that it changes.
    saved : tuple of str
        Modules that it stores as a whole (`modules_to_save`).
    adapter_bytes, pack_bytes : int
        Sizes on disk of the adapter's tensors and of the pack.
    cut_off : float
        Share of the delta's squared norm that truncation to the rank removes.
    left_out : tuple of LeftOut
        Changed tensors that the adapter does not carry, the largest shares first.
    vllm_rank : int or None
        The smallest `max_lora_rank` with which vLLM loads the adapter; None if vLLM does not load it.
    vllm_problems : tuple of str
        The reasons why vLLM does not load it.
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
        """Share of the delta's squared norm in tensors that are left out; unknown shares count as zero."""
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
    """Export a pack as a LoRA adapter of PEFT; the counterpart of `import_adapter`.

    Added to the base, the adapter's low-rank deltas give the pack's weights, up to rank and dtype. Changes that a LoRA
    cannot express are listed in the report.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack.
    out : path
        The directory to write. Its parent directory must exist.
    base : path, mapping of tensors, or Base, optional
        The base. By default the one that the directory's index names. Without a base the share of tensors that are
        stored exactly is unknown.
    model : Module or path, optional
        The model that uses the adapter, or a directory with its configuration; its weights are not read. By default
        the model that the configuration among the pack's auxiliary files describes.
    rank : int, optional
        Rank of the adapter: each delta is truncated to its strongest components. By default vLLM's smallest
        `max_lora_rank` that holds all components.
    dtype : torch.dtype
        Dtype of the factors: float16, bfloat16 or float32.
    base_name_or_path : str, optional
        The base's name in the adapter's configuration; by default the repository that the pack names, if any.
    save_modules : bool
        Store modules that a LoRA cannot change, such as new heads and norms, as a whole. vLLM loads no such adapter.
    strict : bool
        Fail if any change would be left out.
    force : bool
        Replace a directory that exists.

    Returns
    -------
    ExportReport
        Sizes, and the changes that the adapter carries and does not carry.

    Raises
    ------
    EncodeError
        An adapter can carry no change, or with `strict` not every one; or the dtype is too narrow.
    ConfigError
        A rank below 1, or another dtype.
    CheckpointError, ModelMismatchError
        No model is known, or its names are not the pack's.
    FormatError, BaseMismatchError
        As for `dtscodec.decode`.
    OutputError
        The directory exists or cannot be written. This is checked before any other work.
    """
    _check_settings(out, rank, dtype)
    out = as_path(out)
    with decode(pack, base) as decoded:
        opened, its_base = decoded.pack, decoded.base
        inputs = [opened.path] if opened.path else []
        inputs += weight_paths(out, its_base.checkpoint) if its_base else ()
        # Problems of the output are reported before any work is done.
        check_new_adapter(out, force, inputs)
        # Plan: which module carries each change.
        layers = read_model_layers(model, opened, its_base)
        plan = plan_export(opened.index.tensors, list(iter_changes(opened, its_base)), layers, save_modules)
        plan.check(strict)
        # Factor the deltas at one rank, by default rounded up to one that vLLM accepts, if there is any.
        chosen = rank or max_lora_rank(plan.largest_rank) or plan.largest_rank
        pairs, lost = plan.pairs(chosen, dtype)
        recorded = opened.summary.base.repo if opened.summary.base else None
        document = _configuration(plan, pairs, chosen, base_name_or_path or recorded)
        # Write, and check the result by vLLM's constraints.
        saved = {name: decoded[pack_name] for name, pack_name in plan.saved_tensors.items()}
        tensors = adapter_tensors(pairs, saved, dtype)
        size = write_adapter(out, document, tensors, force=force, inputs=inputs)
        problems = vllm_problems(document, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return ExportReport(
            path=out,
            model=layers.model,
            rank=chosen,
            modules=len(pairs),
            saved=plan.saved,
            adapter_bytes=size,
            pack_bytes=opened.size,
            cut_off=lost / plan.square if plan.square else 0.0,
            left_out=plan.left_out,
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


def _configuration(plan: ExportPlan, pairs: Mapping[str, LoraPair], rank: int, base: str | None) -> dict[str, Any]:
    layers = plan.layers
    return settings_document(
        rank,
        base=base,
        task_type=next((task for end, task in PEFT_TASKS.items() if layers.model.endswith(end)), None),
        target_modules=target_modules(pairs, layers.modules),
        modules_to_save=plan.saved,
        fan_in_fan_out=any(layers.kinds[module] == "transposed" for module in pairs),
    )


def target_modules(chosen: Collection[str], modules: Collection[str]) -> list[str]:
    """Return PEFT's `target_modules`: last parts of names if no other module has them, else names in full.

    Parameters
    ----------
    chosen : collection of str
        Modules that the adapter changes.
    modules : collection of str
        All modules of the model.

    Examples
    --------
    >>> target_modules(["0.q", "1.q"], ["0.q", "1.q", "0.k"]), target_modules(["0.q"], ["0.q", "1.q"])
    (['q'], ['0.q'])
    """
    # PEFT matches the end of names: use it only if it selects the chosen modules and no others.
    ends = {name.rpartition(".")[2] for name in chosen}
    matched = {name for name in modules if name.rpartition(".")[2] in ends}
    return sorted(ends if matched == set(chosen) else chosen)
