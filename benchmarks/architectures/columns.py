"""The columns of the table: each takes a workplace and returns a figure, or is refused by a `DtsError`."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import dtscodec
from benchmarks.architectures.libraries import DIFFUSERS, quiet
from benchmarks.architectures.workplace import Changed, State, Workplace, counterpart_in, read_folder

SAME, HALF, PACKED = 1e-4, 1e-2, 2e-2
"""Tolerances: the same weights by another way; factors in half precision; weights of a pack at the size used here."""


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Parameters
    ----------
    value : float
        A relative error or difference.
    tolerance : float
        The largest that is right.
    note : str
        A remark.
    """

    value: float
    tolerance: float
    note: str = ""


class WrongError(Exception):
    """A result is not the expected one."""


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest of `theirs`; infinite if shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.abs().max())


# From disk to disk


def disk(place: Workplace) -> Figure:
    """Directory -> pack -> directory; the figure is the relative error of the weights."""
    task, restored = place.task(), place.folder / "restored"
    with dtscodec.decode(task.pack, place.base_folder) as decoded:
        decoded.save(restored)
    fine, ours, base = read_folder(task.folder), read_folder(restored), read_folder(place.base_folder)
    _check_tensors(ours, fine)
    error = _relative_error(ours, fine, base)
    outputs, true = place.outputs(place.load(restored)), place.outputs(place.load(task.folder))
    if (agreement := difference(outputs, place.outputs(place.decoded_model()))) > SAME:
        raise WrongError(f"outputs of the restored directory differ by {agreement:.1e} from the decoded tensors'")
    if (outputs - true).norm() > 0.2 * (place.base_outputs - true).norm():
        raise WrongError("the restored model is not near the fine-tune")
    return Figure(error, PACKED)


def _check_tensors(ours: State, theirs: State) -> None:
    if ours.keys() != theirs.keys():
        raise WrongError(f"tensors missing or added: {sorted(ours.keys() ^ theirs.keys())}")
    for name, tensor in theirs.items():
        if (ours[name].dtype, ours[name].shape) != (tensor.dtype, tensor.shape):
            raise WrongError(f"{name}: dtype or shape differs")


def _relative_error(ours: State, fine: State, base: State) -> float:
    lost = whole = 0.0
    for name, tensor in fine.items():
        counterpart = counterpart_in(base, name)
        lost += float((ours[name] - tensor).double().square().sum())
        whole += float((tensor - (0 if counterpart is None else counterpart)).double().square().sum())
    return math.sqrt(lost / whole)


# In running models


def from_pretrained(place: Workplace) -> Figure:
    """Load base and pack as a model of transformers."""
    with quiet():
        model = dtscodec.from_pretrained(place.base_folder, place.task().pack)
    return Figure(difference(place.outputs(model), place.outputs(place.decoded_model())), SAME)


def apply_(place: Workplace) -> Figure:
    """Turn a model that holds the base into the fine-tune."""
    model = place.base_model()
    dtscodec.apply_(model, place.task().pack)
    return Figure(difference(place.outputs(model), place.outputs(place.decoded_model())), SAME)


def switcher(place: Workplace) -> Figure:
    """Switch to the task and back: the base must come back bit for bit."""
    model = place.base_model()
    before = copy.deepcopy(model.state_dict())
    running = dtscodec.Switcher(model, packs={"task": place.task().pack})
    running.activate("task")
    value = difference(place.outputs(model), place.outputs(place.decoded_model()))
    running.deactivate()
    if changed := [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]:
        raise WrongError(f"the base did not come back: {changed}")
    return Figure(value, SAME)


def attach_all(place: Workplace) -> Figure:
    """Serve a batch of one row of the task and one of the base, where the task changes tensors of all kinds."""
    return _attach(place, "all")


def attach_linear(place: Workplace) -> Figure:
    """The same where the task changes linear layers only."""
    return _attach(place, "linear")


def _attach(place: Workplace, changed: Changed) -> Figure:
    expected = place.outputs(place.decoded_model(changed))
    model = place.base_model()
    with dtscodec.attach(model, {"task": place.task(changed).pack}) as attached, attached.serve(["task", None]):
        outputs = place.outputs(model)
    detached = place.outputs(model)
    if not torch.equal(detached, place.base_outputs):
        raise WrongError("the model is not the base again")
    return Figure(max(difference(outputs[0], expected[0]), difference(outputs[1], place.base_outputs[1])), SAME)


# Adapters


def export(place: Workplace) -> Figure:
    """Export an adapter; PEFT's model of base and adapter against the decoded one, what is left out at the base's."""
    import peft

    out = place.folder / "exported"
    # A model that transformers cannot build from its configuration is given.
    model = place.like if place.library is DIFFUSERS else None
    report = dtscodec.export_adapter(place.task().pack, out, place.base_folder, model=model)
    expected = place.outputs(place.decoded_model(at_base=[left.name for left in report.left_out]))
    loaded = place.base_model()
    with quiet():
        adapted = peft.PeftModel.from_pretrained(place.library.adapted(loaded), str(out)).eval()
    outputs = place.outputs(place.library.with_adapted(loaded, adapted))
    if difference(expected, place.base_outputs) < HALF:
        raise WrongError("the adapter carries no change that matters")
    note = f"{report.left_out_share:.0%} left out".replace("%", " %") if report.left_out else ""
    return Figure(difference(outputs, expected), HALF, note)


def import_(place: Workplace) -> Figure:
    """Import an adapter; base and pack, decoded to disk, against what PEFT merges and saves."""
    import peft

    library, folder = place.library, place.folder
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8} | dict(place.architecture.lora))
    model = place.base_model()
    with quiet():
        adapted = peft.get_peft_model(library.adapted(model), config).eval()
        _randomize(adapted)
        adapted.save_pretrained(str(folder / "adapter"))
        merged = library.with_adapted(model, adapted.merge_and_unload())
        library.save(merged, folder / "merged")
    dtscodec.import_adapter(folder / "adapter", place.base_folder, folder / "imported.dts.safetensors")
    with dtscodec.decode(folder / "imported.dts.safetensors", place.base_folder) as decoded:
        decoded.save(folder / "imported")
    _check_tensors(read_folder(folder / "imported"), read_folder(folder / "merged"))
    ours, theirs = (place.outputs(place.load(folder / name)) for name in ("imported", "merged"))
    if difference(theirs, place.base_outputs) < 10 * HALF:
        raise WrongError("the adapter changes too little to be compared")
    return Figure(difference(ours, theirs), HALF)


def _randomize(adapted: Any) -> None:
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=random))


COLUMNS: Mapping[str, Callable[[Workplace], Figure]] = {
    "disk": disk,
    "from_pretrained": from_pretrained,
    "apply_": apply_,
    "Switcher": switcher,
    "attach": attach_all,
    "attach, linear layers": attach_linear,
    "export": export,
    "import": import_,
}
"""Columns by name, in the order of the table."""
