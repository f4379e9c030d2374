"""Rows that choose their tasks themselves, layer by layer (ESM++, arXiv 2606.19164)."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy
from dtscodec.format.index import TensorEntry
from dtscodec.kernels.reference import wide_dtype
from dtscodec.runtime.branches.branch import SideBranch, is_additive
from dtscodec.runtime.branches.linear import LinearBranch
from dtscodec.runtime.prototypes import Prototypes, stacked
from dtscodec.runtime.request_batch import RequestBatch
from dtscodec.runtime.resident_pack import ResidentPack

Scope: TypeAlias = Literal["layer", "sample"]
"""Whether each layer decides for itself, or the first that can for all that follow."""

BASE = RequestBatch((), None)


@dataclass(frozen=True, slots=True, eq=False)
class LayerRouter:
    """How the rows of a linear layer's input find their tasks.

    Parameters
    ----------
    name : str
        The layer's weight.
    prototypes : float [tasks, d_in]
        Each of norm 1.
    """

    name: str
    prototypes: Tensor

    def choose(self, x: Tensor, mask: Tensor | None) -> list[int]:
        """For each row the task whose prototype has the largest cosine with its mean input; of equal ones the first.

        Rows do not meet in any product, so that none depends on the others.

        Parameters
        ----------
        x : float [rows, ..., d_in]
        mask : bool [rows, tokens], optional
            False for padding. An input that is not [rows, tokens, d_in] has none.

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
        tokens = x.detach()[:, None].flatten(1, -2).to(wide_dtype(x.dtype))
        if mask is not None and mask.shape == x.shape[:-1]:
            tokens = tokens.masked_fill(~mask.to(x.device)[:, :, None], 0)
        total = tokens.sum(1)  # Has the mean's direction.
        cosines = (total[:, None] * self.prototypes.to(total)).sum(-1)
        chosen: list[int] = cosines.argmax(1).tolist()
        return chosen


@dataclass(frozen=True, slots=True, eq=False)
class Router:
    """What gives rows their tasks by prototypes; made by `Attached.route`. It keeps the packs that it was made with.

    Parameters
    ----------
    tasks : mapping
    routes : mapping
        The layers that route.
    heads : set of Module
        Layers that some task has as a whole.
    unrouted : tuple of str
        Parameters that some task changes, in layers that do not route. In the scope "layer" they stay the base's, but
        for heads that are asked for; in the scope "sample" they are the row's task's, once that is known.
    scope : {"layer", "sample"}
    """

    tasks: Mapping[str, ResidentPack]
    routes: Mapping[nn.Module, LayerRouter]
    heads: Set[nn.Module]
    unrouted: tuple[str, ...]
    scope: Scope

    @property
    def layers(self) -> tuple[str, ...]:
        """The weights of the layers that route, as the model names them."""
        return tuple(routes.name for routes in self.routes.values())


class Routing:
    """A batch whose rows are routed, while a model runs.

    Parameters
    ----------
    router : Router
    mask : [rows, tokens], optional
        Not 0 where a token is none of the padding.
    heads : RequestBatch, optional
        Whose heads are used.

    Attributes
    ----------
    tasks : dict
        For each layer that decided, the tasks of the rows when it last did.

    Raises
    ------
    ModelMismatchError
        The mask is no matrix.
    """

    def __init__(self, router: Router, mask: Tensor | None = None, heads: RequestBatch | None = None) -> None:
        if mask is not None and mask.dim() != 2:
            raise ModelMismatchError(
                f"mask: expected [rows, tokens], got {list(mask.shape)}", Remedy("give the attention mask")
            )
        self._router, self._heads = router, heads
        self._mask = None if mask is None else mask.bool()
        self._decided: RequestBatch | None = None
        self.tasks: dict[str, tuple[str, ...]] = {}

    def select(self, module: nn.Module, x: Tensor) -> RequestBatch:
        """The tasks of the rows in a layer with an input [rows, ..., d_in]."""
        if self._heads is not None and module in self._router.heads:
            return self._heads
        if self._decided is not None:
            return self._decided
        if module not in self._router.routes:
            return BASE
        batch = self._decide(self._router.routes[module], x)
        if self._router.scope == "sample":
            self._decided = batch
        return batch

    def outputs(self, output: Tensor) -> list[Tensor]:
        """As `RequestBatch.outputs`, of the heads that were used."""
        return (self._heads or self._decided or BASE).outputs(output)

    def _decide(self, routes: LayerRouter, x: Tensor) -> RequestBatch:
        names = tuple(self._router.tasks)
        self.tasks[routes.name] = tuple(names[i] for i in routes.choose(x, self._mask))
        return RequestBatch.of([self._router.tasks[task] for task in self.tasks[routes.name]])


def make_router(
    model: nn.Module,
    paths: Mapping[nn.Module, SideBranch],
    tasks: Mapping[str, ResidentPack],
    prototypes: Mapping[str, Prototypes],
    scope: Scope,
) -> Router:
    """See `Attached.route`."""
    linear = {
        f"{name}.weight" if name else "weight": path
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(path := paths.get(module), LinearBranch)
    }
    heads = {path.module for path in linear.values() if not all(map(is_additive, _weights(path, tasks)))}
    free = {name: path for name, path in linear.items() if path.module not in heads and _weights(path, tasks)}
    routes = {
        free[name].module: LayerRouter(
            name, rows.to(free[name].device, wide_dtype(free[name].slots["weight"].tensor.dtype))
        )
        for name, rows in stacked(prototypes, {name: path.inputs for name, path in free.items()}).items()
    }
    changed = dict.fromkeys(slot for resident in tasks.values() for slot in resident.changes)
    unrouted = tuple(slot.name for slot in changed if any(module not in routes for module, _ in slot.owners))
    return Router(tasks, routes, heads, unrouted, scope)


def _weights(branch: SideBranch, tasks: Mapping[str, ResidentPack]) -> list[TensorEntry]:
    """What tasks have as a layer's weight, if they change it."""
    slot = branch.slots["weight"]
    return [resident.changes[slot].entry for resident in tasks.values() if slot in resident.changes]
