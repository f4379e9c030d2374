"""The classes of layers with side branches.

A layer with a side branch gets a subclass of its own class, for two reasons. Compiled code checks the classes of the
layers that it was compiled with, but not their hooks (`torch._dynamo.config.skip_nnmodule_hook_guards`): the subclass
makes it compile again. And the subclass notices when a model reads a layer's weight in place of calling the layer.
"""

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dtscodec.errors import ModelMismatchError, Remedy

FindChanged: TypeAlias = Callable[[nn.Module, str], str | None]
"""Returns the name of a layer's parameter if a task of the current context changes it, else None."""

WATCHED = ("weight", "bias")
"""The parameters that side branches add to."""

NOT_COMPILED = "dtscodec: side branches stay outside of graphs: compile without fullgraph=True, or use Switcher"


class _Running(threading.local):
    """The layers with side branches that this thread is running, innermost last."""

    def __init__(self) -> None:
        self.layers: list[nn.Module] = []


_running = _Running()
_finders: WeakKeyDictionary[Any, tuple[FindChanged, ...]] = WeakKeyDictionary()


def not_compiled(function: Callable[..., Any]) -> Any:
    """Exclude a function from compilation: tasks come and go, and numpy reads packed codes."""
    disable: Any = torch.compiler.disable
    try:
        return disable(function, reason=NOT_COMPILED)
    except TypeError:  # torch before 2.8 takes no reason.
        return disable(function)


def _not_compiled_lazily(function: Callable[..., Any]) -> Any:
    """As `not_compiled`, without importing the compiler before the function is called."""
    return torch._compile._disable_dynamo(function)


def add_branched_class(layer: nn.Module, find_changed: FindChanged) -> None:
    """Give a layer a subclass of its class, for the reasons in the docstring of this module.

    Inverse of `remove_branched_class`. Several calls nest, so that code that was compiled with fewer side branches is
    compiled again.

    Parameters
    ----------
    layer : nn.Module
        The layer.
    find_changed : callable
        Called when the layer's weight or bias is read while the layer does not run.
    """
    _finders[layer] = (*_finders.get(layer, ()), find_changed)
    kind: Any = type(layer)
    layer.__class__ = _branched_class(kind)


def remove_branched_class(layer: nn.Module, find_changed: FindChanged) -> None:
    """Give a layer its class back. Inverse of `add_branched_class`, in any order.

    If another library has replaced the class since then, by a subclass of ours, the layer's class is left as it is.
    """
    _finders[layer] = tuple(other for other in _finders.get(layer, ()) if other != find_changed)
    if "_is_branched" in vars(type(layer)):
        layer.__class__ = type(layer).__bases__[0]


def own_class(layer: nn.Module) -> type[nn.Module]:
    """Return the class that a layer has without side branches."""
    kind = type(layer)
    while "_is_branched" in vars(kind):
        kind = kind.__bases__[0]
    return kind


# Cached, so that equal layers share code that was compiled for one of them.
@functools.cache
def _branched_class(kind: Any) -> type[nn.Module]:
    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        _running.layers.append(self)
        try:
            return kind.__call__(self, *args, **kwargs)
        finally:
            _running.layers.pop()

    # The name of the layer's own class, for messages and for code that compares names.
    attributes: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__call__": not_compiled(call),
        "_is_branched": True,
        **{name: _watched(name) for name in WATCHED if not hasattr(kind, name)},
    }
    return type(kind.__name__, (kind,), attributes)


def _watched(name: str) -> property:
    """Return a property that reads a layer's parameter, and notices if the layer does not run."""

    def read(self: nn.Module) -> Any:
        if torch.compiler.is_compiling():
            skip_frame()  # Code that reads the parameter is not compiled, so that it is checked whenever it runs.
        return check(self)

    @not_compiled
    def check(self: nn.Module) -> Any:
        # torch has parameters in dictionaries of their own; an attribute may have replaced one.
        values = next((held for held in (self._parameters, self._buffers, vars(self)) if name in held), None)
        if values is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        tensor = values[name]
        if not isinstance(tensor, Tensor) or any(layer is self for layer in _running.layers):
            return tensor
        found = next((found for find in _finders.get(self, ()) if (found := find(self, name))), None)
        return tensor if found is None else _unreadable(tensor, found)

    def write(self: nn.Module, value: Any) -> None:
        vars(self)[name] = value  # torch calls this for values that are not parameters.

    dynamo: Any = torch._dynamo
    skip_frame = dynamo.skip_frame if hasattr(dynamo, "skip_frame") else dynamo.graph_break  # torch before 2.8
    return property(read, write)


DESCRIBING = frozenset(
    ("__get__", "size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "data_ptr", "get_device",
     "is_contiguous", "is_floating_point", "is_complex", "type", "__len__", "__repr__", "__hash__")
)  # fmt: skip
"""Functions that describe a tensor and do not compute with its values; `__get__` reads an attribute."""

GRADIENT: Any = vars(torch._C.TensorBase)["grad"].__get__


class _Unreadable(Tensor):
    """A parameter with its dtype, device and shape, which raises ModelMismatchError if its values are used."""

    parameter: Tensor
    parameter_name: str

    @property
    def _is_param(self) -> bool:  # type: ignore[override]
        """Asked by `isinstance(..., nn.Parameter)`, before code such as `tie_weights` registers a parameter."""
        problem = f"{self.parameter_name}: expected parameters to stay where they are, got code that may move them"
        raise ModelMismatchError(problem, Remedy("run it outside of serve"))

    @classmethod
    @_not_compiled_lazily
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        names: list[str] = []
        torch.utils._pytree.tree_map_only(cls, lambda tensor: names.append(vars(tensor)["parameter_name"]), args)
        if func.__name__ in DESCRIBING:
            own = torch.utils._pytree.tree_map_only(cls, lambda tensor: vars(tensor)["parameter"], args)
            found = func(*own, **kwargs or {})
            # Attributes may be tensors, too: `weight.T` has the parameter's values, the gradient has its own.
            if not isinstance(found, Tensor) or func == GRADIENT:
                return found
        where = names[0] if names else "a layer with a side branch"
        problem = f"{where}: expected the model to call the layer, got code that computes with its parameter"
        raise ModelMismatchError(problem, Remedy("use Switcher"))


def _unreadable(tensor: Tensor, name: str) -> Tensor:
    found: Any = Tensor._make_subclass(_Unreadable, tensor.detach(), tensor.requires_grad)
    vars(found).update(parameter=tensor, parameter_name=name)
    return found  # type: ignore[no-any-return]
