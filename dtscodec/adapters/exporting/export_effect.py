"""Predictions of base + adapter on samples, compared with the decoded model's: the effect of an export's losses."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dtscodec.adapters.exporting.export_plan import ExportPlan
from dtscodec.adapters.lora_pair import LoraPair
from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.decoding.decoded import Decoded
from dtscodec.errors import CheckpointError, ConfigError, Remedy
from dtscodec.evaluation.architecture import read_architecture
from dtscodec.evaluation.compare_behaviour import Behaviour, compare_models
from dtscodec.evaluation.samples import PreparedSamples, prepare_samples

BATCH_SIZE = 16
"""Samples in a batch."""


@contextmanager
def prepared_effect(
    decoded: Decoded, samples: "str | os.PathLike[str]", model: "nn.Module | str | Path | None"
) -> Iterator[PreparedSamples]:
    """Read the samples, and the tokenizer or image processor that belongs to a pack or a model directory.

    Parameters
    ----------
    decoded : Decoded
        The pack with its base.
    samples : path
        As for `dtscodec.compare_behaviour`.
    model : Module, path or None
        The model directory. By default the auxiliary files of the pack are used.

    Yields
    ------
    PreparedSamples
        They can be used while the context lasts.

    Raises
    ------
    ConfigError
        A module is given, which has no tokenizer.
    SamplesError, CheckpointError, BackendError
        As for `dtscodec.compare_behaviour`.
    """
    if isinstance(model, nn.Module):
        remedy = Remedy("name a directory ({model})")
        raise ConfigError("expected a model directory with a tokenizer to measure samples with, got a module", remedy)
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            for name, data in decoded.files().items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        architecture = read_architecture(Path(folder if model is None else model))
        yield prepare_samples(architecture, Path(samples), architecture.classes)


def measure_effect(
    decoded: Decoded,
    plan: ExportPlan,
    pairs: Mapping[str, LoraPair],
    dtype: torch.dtype,
    prepared: PreparedSamples,
    samples: "str | os.PathLike[str]",
) -> Behaviour:
    """Compare the predictions of base + adapter with those of the decoded model.

    Parameters
    ----------
    decoded : Decoded
        The pack with its base.
    plan : ExportPlan
        The changes that the adapter carries.
    pairs : mapping of str to LoraPair
        A and B by module.
    dtype : torch.dtype
        Dtype that the pairs are stored in.
    prepared : PreparedSamples
        The samples.
    samples : path
        Their path, for messages.

    Returns
    -------
    Behaviour
        The fields about the fine-tune are the decoded model's. Those about the decoded model are the adapter's.

    Raises
    ------
    CheckpointError
        The adapter leaves out a tensor that the base does not have, or predictions are not finite.
    """
    location = str(decoded.pack.path or "pack")
    build = prepared.architecture.build
    exact = build(decoded, location)
    adapted = build(_adapted_weights(decoded, plan, pairs, dtype), location)
    return compare_models(exact, adapted, prepared, str(samples), BATCH_SIZE)


def _adapted_weights(
    decoded: Decoded, plan: ExportPlan, pairs: Mapping[str, LoraPair], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the weights that PEFT makes of the base and the adapter, by their names in the pack."""
    base = decoded.base
    if base is None:
        raise decoded.pack.missing_base()
    weights = dict(decoded)
    for item in plan.left_out:
        weights[item.name] = _base_tensor(base, plan.counterparts.get(item.name, item.name), item.name)
    for module, change in plan.carried.items():
        name = change.entry.name
        pair = LoraPair(pairs[module].a.to(dtype), pairs[module].b.to(dtype), pairs[module].is_embedding)
        delta = pair.to_delta(1.0, plan.layers.kinds[module] == "transposed")
        start = _base_tensor(base, change.counterpart, name)
        weights[name] = (start.double() + (delta.left @ delta.right).view(start.shape)).float()
    # Tied names follow the tensor that they are tied to.
    return weights | {e.name: weights[e.tied_to] for e in decoded.pack.index.tensors if e.tied_to is not None}


def _base_tensor(base: Base, counterpart: str, name: str) -> Tensor:
    if counterpart not in base.specs:
        detail = "expected an adapter that has all new tensors, to measure samples with, got one without it"
        raise CheckpointError(f"{name}: {detail}", Remedy("store it with its module ({save_modules})"))
    spec = base.specs[counterpart]
    return StoredTensor(counterpart, spec, base.read(counterpart)).tensor()
