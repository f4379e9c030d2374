"""Changes of tied tensors: they remain tied, or become tensors of their own.

In the model that PEFT trains, an adapter changes the tensors that it names. Where a model ties its head to its
embedding, a change of the embedding alone leaves the head as it was, so that the two are no longer equal.
`merge_and_unload` of PEFT changes both in some of these cases. An import follows the model that was trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dtscodec.adapters.importing.fine_tune_model import FineTuneModel
from dtscodec.adapters.importing.model_outline import ModelOutline
from dtscodec.adapters.importing.weight_change import WeightChange
from dtscodec.adapters.lora_adapter import LoraAdapter
from dtscodec.checkpoints.checkpoint import Specs
from dtscodec.format.dtypes import TensorSpec


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the fine-tune.

    Parameters
    ----------
    base : str or None
        Its counterpart in the base; None if it is new.
    change : WeightChange or None
        The adapter's change of it; None if it equals its counterpart.
    tied_to : str or None
        Another tensor of the fine-tune that it equals.
    """

    base: str | None
    change: WeightChange | None = None
    tied_to: str | None = None

    def spec(self, base: Specs) -> TensorSpec:
        """Return its dtype and shape, given the base's; those of a tied tensor are the other one's."""
        whole = None if self.change is None else self.change.whole
        if self.base is None or (whole is not None and self.change is not None and self.change.pair is None):
            assert whole is not None
            return whole.spec
        # A pair is added in the base's dtype, also to an embedding with the rows of added tokens.
        return base[self.base] if whole is None else TensorSpec(base[self.base].dtype, whole.spec.shape)


@dataclass(frozen=True, slots=True)
class TiedChange:
    """The tensors of the fine-tune in place of tensors that are tied in the base.

    Parameters
    ----------
    names : sequence of str
        Their names in the model.
    planned : mapping of str to PlannedTensor
        Those that the fine-tune has on disk, by the names there.
    is_untied : bool
        Whether they are different tensors in the fine-tune.
    changes : mapping of str to WeightChange
        The adapter's changes of these tensors, by names in the model.
    """

    names: tuple[str, ...]
    planned: Mapping[str, PlannedTensor]
    is_untied: bool
    changes: Mapping[str, WeightChange]

    @property
    def is_merged_otherwise(self) -> bool:
        """True if merging changes all of them: PEFT changes a tensor in place, unless the adapter replaces it."""
        return all(change.pair is not None or change.tokens is not None for change in self.changes.values())


def plan_ties(
    tensors: dict[str, PlannedTensor], changes: Mapping[str, WeightChange], adapter: LoraAdapter, model: FineTuneModel
) -> tuple[FineTuneModel, tuple[TiedChange, ...]]:
    """Plan tied tensors together, in place of their separate plans.

    Parameters
    ----------
    tensors : dict of str to PlannedTensor
        The plan so far, by names on disk; it is changed.
    changes : mapping of str to WeightChange
        The adapter's changes, by names in the model.
    adapter : LoraAdapter
        The adapter.
    model : FineTuneModel
        The model.

    Returns
    -------
    model : FineTuneModel
        The model, without ties if some are different tensors now.
    untied : tuple of TiedChange
        The tensors that are different now.
    """
    found = [change_tied(names, changes, adapter, model.outline) for names in model.outline.ties]
    changed = [tied for tied in found if tied is not None]
    for tied in changed:
        for name in tied.names:
            tensors.pop(name, None)
        tensors |= tied.planned
    untied = tuple(tied for tied in changed if tied.is_untied)
    if not untied:
        return model, ()
    # The setting unties the others, too, such as the two biases of BERT's head: each is stored.
    disk = model.outline.disk_names
    for names in model.outline.ties:
        homes = [disk[name] for name in names if name in disk]
        for name in names if homes and all(names != tied.names for tied in untied) else ():
            tensors.setdefault(disk.get(name, name), _copy_of(homes[0], tensors))
    return model.untied(), untied


def _copy_of(home: str, tensors: Mapping[str, PlannedTensor]) -> PlannedTensor:
    """Return a tensor that equals another one of the fine-tune, which may have changed."""
    return PlannedTensor(home) if tensors[home].change is None else PlannedTensor(home, None, home)


def change_tied(
    names: tuple[str, ...], changes: Mapping[str, WeightChange], adapter: LoraAdapter, outline: ModelOutline
) -> TiedChange | None:
    """Return the fine-tune's tensors in place of tied ones; None if the adapter changes none, or the base has none.

    Parameters
    ----------
    names : tuple of str
        Names of the tied tensors in the model.
    changes : mapping of str to WeightChange
        The adapter's changes, by names in the model.
    adapter : LoraAdapter
        The adapter.
    outline : ModelOutline
        The model, with the names on disk.
    """
    on_disk = {name: outline.disk_names[name] for name in names if name in outline.disk_names}
    if not on_disk or not any(name in changes for name in names):
        return None
    home = next(iter(on_disk.values()))
    found = {name: changes[name] for name in names if name in changes}
    follows = adapter.settings.ensure_weight_tying or any(
        _is_shared(name, change, adapter, outline) for name, change in found.items()
    )
    first = next(iter(found.values()))
    if all(change.equals(first) for change in found.values()) and (follows or len(found) == len(names)):
        # They remain tied. The pair of an embedding and that of a head both fit the base's only tensor.
        others = {disk: PlannedTensor(disk, None, home) for disk in on_disk.values() if disk != home}
        return TiedChange(names, {home: PlannedTensor(home, first), **others}, False, found)
    # The model's tensor before the training, with the rows of its grown vocabulary.
    original = next((adapter.originals[name] for name in names if name in adapter.originals), None)
    unchanged = None if original is None else WeightChange(original)
    planned = {on_disk.get(name, name): PlannedTensor(home, found.get(name, unchanged)) for name in names}
    return TiedChange(names, planned, True, found)


def _is_shared(name: str, change: WeightChange, adapter: LoraAdapter, outline: ModelOutline) -> bool:
    """Return whether a change is to the tensor that all tied layers share, rather than to one layer's copy of it."""
    # PEFT ties the rows of tokens of a head to those of the embedding.
    if change.tokens is not None:
        return name in outline.embeddings
    # A tensor that was saved for its grown vocabulary is that of the model, unlike one of `modules_to_save`.
    return change.pair is None and not adapter.is_saved_module(name)
