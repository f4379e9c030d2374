"""Routing: each row of a layer's input chooses its task by prototypes (ESM++, arXiv 2606.19164)."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.reference import wide_dtype
from dtscodec.runtime.branches.branch import SideBranch, is_additive
from dtscodec.runtime.branches.linear import LinearBranch
from dtscodec.runtime.branches.request_batch import RequestBatch
from dtscodec.runtime.model.slots import Slot
from dtscodec.runtime.prototypes import Prototypes, stack_prototypes
from dtscodec.runtime.resident_pack import ResidentPack

Scope: TypeAlias = Literal["layer", "sample"]
"""Whether each layer chooses for itself, or the first layer that routes chooses for all that follow."""

BASE_ONLY = RequestBatch((), None)
"""All requests get the base."""


@dataclass(frozen=True, slots=True, eq=False)
class LayerRouter:
    """Chooses a task for each row of one linear layer's input.

    Parameters
    ----------
    name : str
        Name of the layer's weight.
    prototypes : float [tasks, d_in]
        Mean input of the layer in each task, normalized to norm 1.
    """

    name: str
    prototypes: Tensor

    def choose(self, x: Tensor, mask: Tensor | None) -> list[int]:
        """Choose a task for each row: that of the prototype with the largest cosine to the row's mean input.

        The first of equal prototypes is chosen. Cosines are sums of elementwise products, since rounding in a matrix
        product could depend on the other rows.

        Parameters
        ----------
        x : float [rows, ..., d_in]
            The layer's input.
        mask : bool [rows, tokens], optional
            False for padding. Ignored for inputs that are not [rows, tokens, d_in].

        Returns
        -------
        list of int
            Index of each row's task.

        Raises
        ------
        ModelMismatchError
            The input has no dimension for rows, or not those of the mask.
        """
        if x.dim() < 2 or (mask is not None and len(mask) != len(x)):
            rows = "a first dimension of rows" if mask is None else f"the {len(mask)} rows of the mask"
            raise ModelMismatchError(
                f"{self.name}: expected {rows}, got an input of {list(x.shape)}",
                Remedy("give a row of the mask for each of the model (beams are rows), or none"),
            )
        # Sum over tokens, padding excluded. The sum has the mean's direction, which is all that a cosine needs.
        # [rows, ..., d_in] -> [rows, tokens, d_in].
        tokens = x.detach()[:, None].flatten(1, -2).to(wide_dtype(x.dtype))
        if mask is not None and mask.shape == x.shape[:-1]:
            tokens = tokens.masked_fill(~mask.to(x.device)[:, :, None], 0)
        total = tokens.sum(1)
        # Cosines up to the norm of the row's mean, which does not change their order.
        cosines = (total[:, None] * self.prototypes.to(total)).sum(-1)
        chosen: list[int] = cosines.argmax(1).tolist()
        return chosen


@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """The layers of a model that route, made by `Attached.route`.

    It holds its own references to the packs, so that it works even after their tasks are removed.

    Parameters
    ----------
    tasks : mapping of str to ResidentPack
        The tasks to choose from.
    layer_routers : mapping of Module to LayerRouter
        The layers that route.
    heads : set of Module
        Layers that some task stores as a whole.
    unrouted : tuple of str
        Parameters that some task changes, in layers that do not route. In the scope "layer" they stay the base's,
        except in heads that are asked for; in the scope "sample" they are those of the row's task once it is chosen.
    scope : {"layer", "sample"}
        Whether each layer chooses for itself, or the first layer that routes chooses for all that follow.
    """

    tasks: Mapping[str, ResidentPack]
    layer_routers: Mapping[nn.Module, LayerRouter]
    heads: Set[nn.Module]
    unrouted: tuple[str, ...]
    scope: Scope

    @property
    def layers(self) -> tuple[str, ...]:
        """Weights of the layers that route, by their names in the model."""
        return tuple(router.name for router in self.layer_routers.values())


class Routing:
    """The choices of one run of a model, in which each row chooses its task. A `TaskSelector`.

    Parameters
    ----------
    router : Router
        The layers that route.
    mask : [rows, tokens], optional
        Attention mask: 0 for padding, which is excluded from the means.
    heads : RequestBatch, optional
        The tasks that heads are taken from.

    Attributes
    ----------
    tasks : dict of str to tuple of str
        The rows' tasks as each layer last chose them, by the name of the layer's weight.

    Raises
    ------
    ModelMismatchError
        The mask is not two-dimensional.
    """

    def __init__(self, router: Router, mask: Tensor | None = None, heads: RequestBatch | None = None) -> None:
        if mask is not None and mask.dim() != 2:
            raise ModelMismatchError(
                f"mask: expected [rows, tokens], got {list(mask.shape)}", Remedy("give the attention mask")
            )
        self._router, self._heads = router, heads
        self._mask = None if mask is None else mask.bool()
        self._chosen: RequestBatch | None = None
        self.tasks: dict[str, tuple[str, ...]] = {}

    def select(self, module: nn.Module, x: Tensor) -> RequestBatch:
        """Return the rows by task for one call of a layer; see `TaskSelector`."""
        # A head as the caller chose, else the row's earlier choice, else a choice by this layer.
        if self._heads is not None and module in self._router.heads:
            return self._heads
        if self._chosen is not None:
            return self._chosen
        if module not in self._router.layer_routers:
            return BASE_ONLY
        batch = self._choose(self._router.layer_routers[module], x)
        if self._router.scope == "sample":
            self._chosen = batch
        return batch

    def may_change(self, slot: Slot) -> bool:
        """Return whether a task of the router, or a head that the caller chose, changes a parameter."""
        is_of_head = self._heads is not None and self._heads.may_change(slot)
        return is_of_head or any(slot in resident.changes for resident in self._router.tasks.values())

    def outputs(self, output: Tensor) -> list[Tensor]:
        """Split a model's output by row, each as wide as the head that was used; see `RequestBatch.outputs`."""
        return (self._heads or self._chosen or BASE_ONLY).outputs(output)

    def _choose(self, layer: LayerRouter, x: Tensor) -> RequestBatch:
        names = tuple(self._router.tasks)
        self.tasks[layer.name] = tuple(names[i] for i in layer.choose(x, self._mask))
        return RequestBatch.of([self._router.tasks[task] for task in self.tasks[layer.name]])


def make_router(
    model: nn.Module,
    branches: Mapping[nn.Module, SideBranch],
    tasks: Mapping[str, ResidentPack],
    prototypes: Mapping[str, Prototypes],
    scope: Scope,
) -> Router:
    """Find the layers that route; see `Attached.route`.

    Parameters
    ----------
    model : nn.Module
        The model.
    branches : mapping of Module to SideBranch
        Its side branches.
    tasks : mapping of str to ResidentPack
        The tasks to choose from.
    prototypes : mapping of str to Prototypes
        Prototypes of the same tasks.
    scope : {"layer", "sample"}
        As of `Router`.
    """
    # Collect linear layers by all their names, since prototypes may use any name of a tied layer.
    linear = {
        f"{name}.weight" if name else "weight": branch
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(branch := branches.get(module), LinearBranch)
    }
    # A layer that some task replaces cannot route, since its output would not be the base's plus a delta.
    heads = {branch.module for branch in linear.values() if not all(map(is_additive, _weights(branch, tasks)))}
    # Layers that some task changes and none replaces can route, if every task has a prototype there.
    routable = {
        name: branch for name, branch in linear.items() if branch.module not in heads and _weights(branch, tasks)
    }
    layer_routers = {}
    for name, rows in stack_prototypes(prototypes, {name: branch.inputs for name, branch in routable.items()}).items():
        branch = routable[name]
        # The dtype in which inputs are summed.
        dtype = wide_dtype(branch.slots["weight"].tensor.dtype)
        layer_routers[branch.module] = LayerRouter(name, rows.to(branch.device, dtype))
    changed = dict.fromkeys(slot for resident in tasks.values() for slot in resident.changes)
    unrouted = tuple(slot.name for slot in changed if any(module not in layer_routers for module, _ in slot.owners))
    return Router(tasks, layer_routers, heads, unrouted, scope)


def _weights(branch: SideBranch, tasks: Mapping[str, ResidentPack]) -> list[TensorEntry]:
    """Return the weights of a layer in all tasks that change it."""
    slot = branch.slots["weight"]
    return [resident.changes[slot].entry for resident in tasks.values() if slot in resident.changes]
