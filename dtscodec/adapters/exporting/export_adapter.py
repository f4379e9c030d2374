"""Pack -> LoRA adapter for PEFT and vLLM: each layer has its own rank, and all have a scale of 1."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from dtscodec.adapters.exporting.export_document import export_document
from dtscodec.adapters.exporting.export_effect import measure_effect, prepared_effect
from dtscodec.adapters.exporting.export_obstacles import AdapterTarget
from dtscodec.adapters.exporting.export_plan import plan_export
from dtscodec.adapters.exporting.export_report import ExportReport
from dtscodec.adapters.exporting.tensor_changes import iter_changes
from dtscodec.adapters.exporting.vllm_constraints import max_lora_rank, vllm_problems
from dtscodec.adapters.exporting.vllm_models import VLLM_VERSION, lora_embeddings
from dtscodec.adapters.lora_file import adapter_tensors, check_new_adapter, write_adapter
from dtscodec.adapters.model_layers import read_model_layers
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import weight_paths
from dtscodec.decoding.decode import decode
from dtscodec.errors import ConfigError, EncodeError, OutputError, Remedy
from dtscodec.packs.pack import PackSource
from dtscodec.storage.paths import as_path, is_remote


def export_adapter(
    pack: PackSource,
    out: str | Path,
    base: "Source | Base | None" = None,
    *,
    to: AdapterTarget = "peft",
    model: "nn.Module | str | Path | None" = None,
    rank: int | None = None,
    dtype: torch.dtype = torch.float16,
    base_name_or_path: str | None = None,
    uniform_rank: bool = False,
    save_modules: bool = False,
    strict: bool = False,
    samples: "str | os.PathLike[str] | None" = None,
    force: bool = False,
) -> ExportReport:
    """Export a pack as a LoRA adapter of PEFT; the counterpart of `import_adapter`.

    Added to the base, the adapter's low-rank deltas give the pack's weights, up to rank and dtype. Changed heads of
    classifiers are stored as a whole. Changes that a LoRA cannot express are listed in the report.

    Parameters
    ----------
    pack : path, bytes or Pack
        The pack.
    out : path
        The directory to write. Its parent directory must exist.
    base : path, mapping of tensors, or Base, optional
        The base. By default the one that the directory's index names. Without a base the share of tensors that are
        stored exactly is unknown.
    to : {"peft", "vllm"}
        The program that the adapter is for. Changes that vLLM refuses are left out for vLLM, and reported for PEFT.
    model : Module or path, optional
        The model that uses the adapter, or a directory with its configuration; its weights are not read. By default
        the model that the configuration among the pack's auxiliary files describes.
    rank : int, optional
        Largest rank: each delta is truncated to its strongest components. By default no component is lost.
    dtype : torch.dtype
        Dtype of the factors: float16, bfloat16 or float32.
    base_name_or_path : str, optional
        The base's name in the adapter's configuration; by default the repository that the pack names, if any.
    uniform_rank : bool
        Pad all layers with zeros to the largest rank, for programs that know one rank only, such as SGLang.
    save_modules : bool
        Store modules that a LoRA cannot change, such as norms, as a whole, and the biases of layers that it changes.
        PEFT only.
    strict : bool
        Fail if any change would be left out.
    samples : path, optional
        Texts or images, as for `dtscodec.compare_behaviour`, on which the predictions of base + adapter are compared
        with those of the decoded model. Both are then in memory.
    force : bool
        Replace a directory that exists.

    Returns
    -------
    ExportReport
        Sizes, and the changes that the adapter carries and does not carry.

    Raises
    ------
    EncodeError
        An adapter can carry no change, or with `strict` not every one; vLLM supports no LoRA for the model; or the
        dtype is too narrow.
    ConfigError
        A rank below 1, another dtype or program, or `save_modules` for vLLM.
    SamplesError
        The samples cannot be read, or are not of the kind that the model takes.
    CheckpointError, ModelMismatchError
        No model is known, or its names are not the pack's.
    FormatError, BaseMismatchError
        As for `dtscodec.decode`.
    OutputError
        The directory exists or cannot be written. This is checked before any other work.
    """
    _check_settings(out, rank, dtype, to, save_modules)
    out = as_path(out)
    # Problems of the output are reported before any work is done.
    check_new_adapter(out, force)
    with decode(pack, base, whole=samples is not None, lossy=True) as decoded, ExitStack() as stack:
        decoded.pack.check_front()
        opened, its_base = decoded.pack, decoded.base
        inputs = [opened.path] if opened.path else []
        inputs += weight_paths(out, its_base.checkpoint) if its_base else ()
        check_new_adapter(out, force, inputs)
        if samples is not None:
            prepared = stack.enter_context(prepared_effect(decoded, samples, model))
        # Plan: which module carries each change.
        layers = read_model_layers(model, opened, its_base)
        _check_target(to, layers.model)
        changes = list(iter_changes(opened, its_base))
        plan = plan_export(opened.index.tensors, changes, layers, save_modules=save_modules, to=to, base=its_base)
        plan.check(strict, can_save_more=to == "peft" and not save_modules)
        # Factor the deltas, each at its own rank.
        pairs, lost = plan.pairs(rank, dtype)
        largest = max(pair.rank for pair in pairs.values())
        if uniform_rank:
            pairs = {module: pair.padded(largest) for module, pair in pairs.items()}
        recorded = opened.summary.base.repo if opened.summary.base else None
        document = export_document(plan, pairs, base_name_or_path or recorded)
        effect = None if samples is None else measure_effect(decoded, plan, pairs, dtype, prepared, samples)
        # Write, and check the result by vLLM's constraints.
        saved = {name: decoded[pack_name] for name, pack_name in plan.saved_tensors.items()}
        biases = {name: decoded[layers.names.in_checkpoint[name]] for name in plan.biases}
        tensors = adapter_tensors(pairs, saved, biases, dtype)
        size = write_adapter(out, document, tensors, force=force, inputs=inputs)
        problems = vllm_problems(
            document, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, layers.model
        )
        return ExportReport(
            path=out,
            model=layers.model,
            ranks={module: pair.rank for module, pair in pairs.items()},
            saved=plan.saved,
            tied=plan.tied,
            adapter_bytes=size,
            pack_bytes=opened.size,
            cut_off=lost / plan.square if plan.square else 0.0,
            left_out=plan.left_out,
            vllm_rank=None if problems else max_lora_rank(largest),
            vllm_problems=tuple(problems),
            effect=effect,
        )


def _check_settings(out: str | Path, rank: int | None, dtype: torch.dtype, to: str, save_modules: bool) -> None:
    if rank is not None and rank < 1:
        raise ConfigError(f"expected a rank of at least 1, got {rank}")
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ConfigError(f"expected float16, bfloat16 or float32, got {dtype}")
    if to not in get_args(AdapterTarget):
        raise ConfigError(f"expected an adapter for peft or vllm, got {to!r}")
    if to == "vllm" and save_modules:
        remedy = Remedy("leave out {save_modules}, or export for PEFT ({to})", {"to": "'peft'"})
        raise ConfigError("expected no whole modules but heads, since vLLM refuses others, got all", remedy)
    if is_remote(out):
        raise OutputError(f"{out}: expected a local path, since only encode writes to remote storage")


def _check_target(to: AdapterTarget, model: str) -> None:
    """Raise EncodeError if the program supports no LoRA for a model."""
    if to == "vllm" and lora_embeddings(model) is None:
        problem = f"{model}: expected a model for which vLLM {VLLM_VERSION} supports LoRA, got one without"
        raise EncodeError(
            problem, Remedy("decode the pack and serve the checkpoint, or export for PEFT ({to})", {"to": "'peft'"})
        )
