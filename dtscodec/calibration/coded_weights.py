"""Which weights of a model a fit can adjust."""

from torch import nn

from dtscodec.decoding.decoded import Decoded
from dtscodec.errors import NothingToFitError, Remedy
from dtscodec.packs.pack import Pack
from dtscodec.runtime.model.model_matching import match_model
from dtscodec.runtime.model.model_slots import ModelSlots
from dtscodec.runtime.model.slots import Slot


def coded_weights(model: nn.Module, decoded: Decoded) -> dict[Slot, str]:
    """Return the weights of a model that a fit can adjust, with their names in the pack.

    Buffers, such as the statistics of batch norms, have no gradients: they stay as decoded. So do tensors that the
    model holds in another form, such as experts in one parameter.

    Parameters
    ----------
    model : nn.Module
        The model.
    decoded : Decoded
        The pack on its base.

    Raises
    ------
    ModelMismatchError
        The pack does not fit the model.
    NothingToFitError
        Nothing in the pack is coded.
    """
    pack = decoded.pack
    changed = match_model(pack, ModelSlots(model), decoded.base.specs if decoded.base else {}).changed
    found = {
        slot: name for slot, name in changed.items() if slot.is_parameter and slot.is_whole and _is_coded(pack, name)
    }
    if not found:
        detail = "expected coded tensors, got none that can be fitted"
        raise NothingToFitError(f"{pack.path or 'pack'}: {detail}", Remedy("use the pack as it is"))
    return found


def _is_coded(pack: Pack, name: str) -> bool:
    return any(block.is_coded for block in pack.reader.entry(name).blocks)
