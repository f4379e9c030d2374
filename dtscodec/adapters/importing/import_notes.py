"""Notes on an imported adapter."""

from dtscodec.adapters.importing.import_plan import ImportPlan
from dtscodec.adapters.importing.model_config import ModelConfig
from dtscodec.adapters.importing.tied_changes import TiedChange
from dtscodec.adapters.model_layers import CONFIG
from dtscodec.encoding.notes import NAMED_TENSORS, Note
from dtscodec.messages import counted, listed


def import_notes(plan: ImportPlan, has_config: bool, added_token: int) -> list[Note]:
    """Return the notes on an imported adapter.

    Parameters
    ----------
    plan : ImportPlan
        The tensors of the fine-tune, and its configuration.
    has_config : bool
        Whether the pack has the configuration of the fine-tune.
    added_token : int
        Largest number of a token that the adapter's tokenizer adds to the base's; -1 if it adds none.
    """
    notes = []
    if plan.config_changes:
        place = "" if has_config else ", and the pack has none"
        text = f"{CONFIG} of the fine-tune differs from the base's{place}: {', '.join(plan.config_changes)}"
        notes.append(Note(kind="changed-config", text=text, names=(CONFIG,)))
    notes += [_untied(tied) for tied in plan.untied]
    if plan.missing:
        named = listed(plan.missing, NAMED_TENSORS)
        are = "is" if len(plan.missing) == 1 else "are"
        text = f"{counted(len(plan.missing), 'tensor')} of the model {are} in neither base nor adapter: {named}"
        notes.append(Note(kind="missing", text=text, names=plan.missing))
    rows = max((plan.config or ModelConfig({})).vocabularies, default=added_token + 1)
    if added_token >= rows:
        text = f"the adapter's tokenizer has {added_token + 1} tokens, base and adapter have rows for {rows} of them"
        notes.append(Note(kind="missing", text=text))
    return notes


def _untied(tied: TiedChange) -> Note:
    """Return the note on tensors that are tied in the base, and no longer in the fine-tune."""
    changed = tied.changes.keys()
    how = "each in its own way" if {*changed} == {*tied.names} else f"{listed(sorted(changed), NAMED_TENSORS)} only"
    text = f"{listed(sorted(tied.names), NAMED_TENSORS)} are no longer tied, since the adapter changes {how}"
    merged = "; PEFT's merge_and_unload would change all of them" if tied.is_merged_otherwise else ""
    return Note(kind="untied", text=text + merged, names=tuple(sorted(tied.names)))
