"""An adapter and its base -> the tensors of the fine-tune, their counterparts, and the configuration of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtscodec.adapters.importing.counterparts import NAME_TRAINED_BASE, check_pair, find_counterparts
from dtscodec.adapters.importing.fine_tune_model import FineTuneModel, Shape
from dtscodec.adapters.importing.model_config import ModelConfig
from dtscodec.adapters.importing.tied_changes import PlannedTensor, TiedChange, plan_ties
from dtscodec.adapters.importing.weight_change import WeightChange, changes_of
from dtscodec.adapters.lora_adapter import LoraAdapter
from dtscodec.adapters.peft_config import MERGE_FIRST, SERVE_WITH_PEFT
from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.checkpoints.names.name_match import IDENTITY, Rule
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.naming import utf8

INSTALL_TRANSFORMERS = Remedy(
    f"pip install 'dtscodec[transformers]', or, where transformers does not know the model, {MERGE_FIRST.text}"
)


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """The tensors of the fine-tune that results from an adapter and its base.

    Parameters
    ----------
    prefix : (str, str)
        Leading prefixes in which names of fine-tune and base differ, as in `dtscodec.format.index.Index`.
    tensors : mapping of str to PlannedTensor
        By name; names ascend by their UTF-8 bytes.
    absent : sequence of str
        Tensors of the base that the fine-tune lacks.
    transposed : bool
        Whether the model holds linear weights as [in, out]. For square weights the shape does not show it.
    config : ModelConfig or None
        The configuration of the fine-tune; None if the base has none.
    has_own_config : bool
        Whether it differs from the base's.
    config_changes : tuple of str
        Its differences from the base's, in words, except for quantization, on which there is a note of its own.
    missing : sequence of str
        Tensors of the model that neither base nor adapter holds.
    untied : tuple of TiedChange
        Tensors that are tied in the base, and no longer in the fine-tune.
    """

    prefix: Rule
    tensors: Mapping[str, PlannedTensor]
    absent: tuple[str, ...]
    transposed: bool
    config: ModelConfig | None
    has_own_config: bool
    config_changes: tuple[str, ...]
    missing: tuple[str, ...]
    untied: tuple[TiedChange, ...] = ()


def plan_import(
    adapter: LoraAdapter,
    base: Specs,
    config: ModelConfig | None,
    renames: Sequence[tuple[str, str]] = (),
    *,
    is_dequantized: bool = False,
) -> ImportPlan:
    """Plan the import of an adapter.

    Parameters
    ----------
    adapter : LoraAdapter
        The adapter.
    base : mapping of str to TensorSpec
        Dtypes and shapes of the base's tensors.
    config : ModelConfig or None
        The base's configuration, if it has one.
    renames : sequence of (str, str)
        Tensors whose names differ in another way than by a prefix: name in the fine-tune, name in the base.
    is_dequantized : bool
        Whether the base is quantized, and is read dequantized.

    Raises
    ------
    EncodeError
        A weight that the adapter changes is missing in the base, has another shape, or is not floating-point; the
        adapter holds a tensor that the model lacks, or lacks one that it needs; or it does not change a tensor of
        `renames`.
    """
    changes: Mapping[str, WeightChange] = changes_of(adapter)
    config_changes, base_config = tuple[str, ...](), config
    if is_dequantized and config is not None:
        config = config.unquantized()
    # 1. Counterparts by names alone. The model is built, without weights, only where names do not suffice.
    rule, counterparts = find_counterparts(changes, base, dict(renames))
    model = None
    if config is not None and (rule != IDENTITY or _needs_model(changes, counterparts, config, base)):
        model = FineTuneModel.of(config, base)
        if model is None and config.ties and _touches_vocabulary(changes, config):
            problem = "expected a model that transformers can build, since the base ties its embeddings, got none"
            raise EncodeError(f"config.json: {problem}", INSTALL_TRANSFORMERS)
    if model is not None:
        if rule[0] and None not in counterparts.values():
            # The base may be a part of the model that the adapter was trained in, such as GPT-2 without its head.
            model = model.with_heads(counterparts, adapter.settings, base)
        changes, rule, counterparts = _match_by_model(model, changes, rule, counterparts, dict(renames))
        heads = [name for name, target in counterparts.items() if target is None]
        model = model.with_heads(heads, adapter.settings, base)
    # 2. All tensors of the fine-tune; those that are tied in the base are planned together.
    tensors = _all_tensors(rule, counterparts, changes, base, model)
    untied: tuple[TiedChange, ...] = ()
    if model is not None and rule == IDENTITY:
        model, untied = plan_ties(tensors, changes, adapter, model)
    # 3. Checks, before anything is encoded.
    _check_new(tensors, adapter, model)
    transposed = _check_pairs(tensors, base, adapter.settings.fan_in_fan_out)
    absent: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    # 4. The configuration: vocabulary, labels and class follow the tensors.
    if model is not None:
        shapes = _shapes(tensors, base, model)
        model = model.with_sizes(shapes, [name for name in shapes if adapter.is_saved_module(name)], base)
        absent, missing = _compare_classes(tensors, shapes, model)
        config = model.config
        config_changes = model.changes
    ordered = dict(sorted(tensors.items(), key=lambda item: utf8(item[0])))
    return ImportPlan(rule, ordered, absent, transposed, config, config != base_config, config_changes, missing, untied)


def _touches_vocabulary(changes: Mapping[str, WeightChange], config: ModelConfig) -> bool:
    return any(change.tokens or config.vocabularies & {*(change.shape or ())} for change in changes.values())


def _needs_model(
    changes: Mapping[str, WeightChange], counterparts: Mapping[str, str | None], config: ModelConfig, base: Specs
) -> bool:
    """Return whether names may differ in memory and on disk, tensors may be tied, or sizes have changed."""
    for name, target in counterparts.items():
        shape = changes[name].shape
        if target is None or shape is None or sorted(shape) != sorted(base[target].shape):
            return True
        if config.may_tie and config.vocabularies & {*shape}:
            return True
    return False


def _match_by_model(
    model: FineTuneModel,
    changes: Mapping[str, WeightChange],
    rule: Rule,
    counterparts: dict[str, str | None],
    renames: Mapping[str, str],
) -> tuple[Mapping[str, WeightChange], Rule, dict[str, str | None]]:
    """Return changes, rule and counterparts by the model's names, if names alone leave one without or differ."""
    disk = model.outline.disk_names
    is_left = any(target is None and name in disk for name, target in counterparts.items())
    # Checkpoints such as GPT-2's lack the prefix of the model with a head, whose ties are known by the model's names.
    has_all = all(name in disk for name, target in counterparts.items() if target is not None)
    if is_left or (rule != IDENTITY and has_all):
        return (
            changes,
            IDENTITY,
            {name: renames.get(name) or disk.get(name, target) for name, target in counterparts.items()},
        )
    # The adapter was trained in another module than the base's model, such as the model without its head, or a wrapper.
    memory = {other: name for name, other in disk.items()}
    names = {name: memory[target] for name, target in counterparts.items() if target in memory}
    if rule[0] and not renames and len({*names.values()}) == len(counterparts):
        changes = {names[name]: change for name, change in changes.items()}
        return changes, IDENTITY, {name: disk[name] for name in changes}
    return changes, rule, counterparts


def _all_tensors(
    rule: Rule,
    counterparts: Mapping[str, str | None],
    changes: Mapping[str, WeightChange],
    base: Specs,
    model: FineTuneModel | None,
) -> dict[str, PlannedTensor]:
    """Return the base's tensors, under the fine-tune's names, and those that the adapter changes or adds."""
    fine, other = rule
    tensors = {
        fine + name.removeprefix(other) if name.startswith(other) else name: PlannedTensor(name) for name in base
    }
    disk = {} if model is None or rule != IDENTITY else model.outline.disk_names
    for name, target in counterparts.items():
        # A tensor with another name in memory gets the name on disk, by which it is loaded.
        tensors[disk.get(name, name)] = PlannedTensor(target, changes[name])
    return tensors


def _check_new(tensors: Mapping[str, PlannedTensor], adapter: LoraAdapter, model: FineTuneModel | None) -> None:
    """Refuse tensors that the model does not have, and tensors that transformers makes of others."""
    known = {} if model is None else model.outline.shapes
    converted = frozenset[str]() if model is None else model.outline.targets
    for name, planned in tensors.items():
        if planned.base is not None or planned.change is None:
            continue
        if name in converted:
            detail = "expected a tensor that the checkpoint has, too, got one that transformers makes of several"
            raise EncodeError(f"{name}: {detail}", MERGE_FIRST)
        if name in known or planned.change.pair is not None:
            continue
        if planned.change.tokens is not None:
            raise EncodeError(f"{name}: expected a tensor of this name in the base, got none", NAME_TRAINED_BASE)
        if planned.change.bias is not None:
            raise EncodeError(f"{name}: expected a bias of the layer, got a layer without", SERVE_WITH_PEFT)
        if not adapter.is_saved_module(name):
            detail = "expected a tensor of the base, or of modules_to_save, got one of neither"
            raise EncodeError(f"{name}: {detail}", MERGE_FIRST)


def _check_pairs(tensors: Mapping[str, PlannedTensor], base: Specs, transposed: bool) -> bool:
    """Check all pairs against the base, and return whether the model holds linear weights as [in, out]."""
    for name, planned in tensors.items():
        if planned.change is not None and planned.change.pair is not None:
            whole = planned.change.whole
            shape = None if whole is None else whole.spec.shape
            transposed |= check_pair(name, planned.change.pair, planned.base, base, shape)
    return transposed


def _shapes(tensors: Mapping[str, PlannedTensor], base: Specs, model: FineTuneModel) -> dict[str, Shape]:
    """Return the shapes of the fine-tune's tensors by the names that the model gives them."""
    known, memory = model.outline.shapes, {disk: name for name, disk in model.outline.disk_names.items()}

    def in_memory(name: str, planned: PlannedTensor) -> str:
        if name in memory or name in known:
            return memory.get(name, name)
        # Under another prefix than the model's class has, as in an adapter of a model without its head.
        return memory.get(planned.base or name, name)

    return {
        in_memory(name, planned): tensors[planned.tied_to or name].spec(base).shape for name, planned in tensors.items()
    }


def _compare_classes(
    tensors: dict[str, PlannedTensor], shapes: Mapping[str, Shape], model: FineTuneModel
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Drop the base's tensors that a model of another class lacks; return these, and those that only the model has."""
    if not any(change.startswith("architectures") for change in model.changes):
        return (), ()
    outline = model.outline
    known = {*outline.disk_names.values(), *outline.sources}
    dropped = [name for name, planned in tensors.items() if planned.change is None and planned.base not in known]
    absent = sorted(str(tensors.pop(name).base) for name in dropped)
    tied = {name for names in outline.ties if {*names} & shapes.keys() for name in names}
    return tuple(absent), tuple(sorted(outline.shapes.keys() - shapes.keys() - tied - outline.targets))
