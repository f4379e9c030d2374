"""Attach packs to a model, so that a batch can hold requests for several tasks."""

from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType

from torch import nn

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.packs.pack import PackSource
from dtscodec.runtime.attached import Attached


def attach(
    model: nn.Module, packs: Mapping[str, PackSource] = MappingProxyType({}), base: "Source | Base | None" = None
) -> Attached:
    """Attach packs to a model that holds the base, so that each request of a batch can name a task.

    Linear layers, GPT-2's Conv1D, embeddings, convolutions, LayerNorm and RMSNorm get a side branch. A linear layer
    that a task stores as a whole (a new head) is used in place of the model's. A task that changes any other parameter
    is refused.

    Parameters
    ----------
    model : nn.Module
        The model, which holds the base's weights.
    packs : mapping of str to path, bytes or Pack
        Packs by task.
    base : path, mapping of tensors, or Base, optional
        The base, if the model holds it in another dtype than the packs were made against.

    Returns
    -------
    Attached
        A context manager that detaches the packs.

    Raises
    ------
    ModelMismatchError, BaseMismatchError, FormatError, TaskError
        As for `Attached.add`. The model is unchanged.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    >>> fine = {name: tensor + torch.ones(64) for name, tensor in model.state_dict().items()}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = dtscodec.encode(model.state_dict(), fine, f"{folder}/pack").path
    ...     attached = dtscodec.attach(model, {"one": path})
    >>> with torch.no_grad(), attached.serve(["one", None]):
    ...     one, base = model(torch.ones(2, 64))
    >>> torch.allclose(one - base, torch.tensor(65.0), rtol=1e-2)
    True
    >>> attached.detach()
    """
    with ExitStack() as stack:
        attached = stack.enter_context(Attached(model, base))
        for task, pack in packs.items():
            attached.add(task, pack)
        stack.pop_all()
    return attached
