"""The interface of merge methods: options, inputs that a method needs, and how it combines task vectors."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, TypeAlias

from torch import Tensor

from dtscodec.errors import ConfigError, MergeError, Remedy
from dtscodec.merging.merge_inputs import MergeInputs
from dtscodec.merging.task_vectors import TaskVectors
from dtscodec.progress import ProgressCallback

Combine: TypeAlias = Callable[[TaskVectors], Tensor]
"""Task vectors of one tensor -> the merged task vector, float32, which alpha scales.

Deterministic, since it may be called more than once for a tensor: a random method seeds itself by the tensor's name.
"""


@dataclass(frozen=True, slots=True)
class MergeMethod(ABC):
    """Base class of merge methods: frozen dataclasses with the options as fields.

    The result of a merge is base + alpha * merged task vector, tensor by tensor. A subclass sets `name`, implements
    `prepare`, and overrides what differs from the defaults here.
    """

    name: ClassVar[str]
    """The method's name on the command line and in files."""
    needs_base: ClassVar[bool] = True
    """True if the pre-trained base must be given."""
    needs_noise_edges: ClassVar[bool] = False
    """True if `TaskVectors.noise_edges` must be computed."""
    takes_grams: ClassVar[bool] = False
    """True if Gram matrices of the layers' inputs may be given."""
    min_fine_tunes: ClassVar[int] = 1
    """The smallest number of fine-tunes that can be merged."""

    @property
    def alpha(self) -> float | None:
        """The factor on the merged task vector; None for a method without one."""
        return None

    @property
    def passes(self) -> int:
        """Number of times that `prepare` reads every tensor."""
        return 0

    @property
    def scales_layers(self) -> bool:
        """True if all merged task vectors must be known before `layer_factors` scales the first."""
        return False

    @property
    def reads(self) -> int:
        """Number of times that a merge reads every fine-tune and reports progress; a search of alpha adds one."""
        return 1 + self.passes + self.scales_layers

    def check_inputs(self, count: int, has_base: bool, has_grams: bool) -> None:
        """Raise an error for inputs that the method cannot merge.

        Parameters
        ----------
        count : int
            Number of fine-tunes.
        has_base : bool
            The pre-trained base is given.
        has_grams : bool
            Gram matrices are given.

        Raises
        ------
        MergeError
            There are too few fine-tunes.
        ConfigError
            The base is missing, or the method takes no Gram matrices.
        """
        least = self.min_fine_tunes
        if count < least:
            raise MergeError(f"{self.name}: expected at least {least} fine-tune{'s' * (least > 1)}, got {count}")
        if self.needs_base and not has_base:
            remedy = Remedy("name it with {base}")
            raise ConfigError(f"{self.name}: expected the base of the fine-tunes, got none", remedy)
        if has_grams and not self.takes_grams:
            remedy = Remedy("leave out {grams}, which is for esm")
            raise ConfigError(f"{self.name}: expected no Gram matrices, got some", remedy)

    @abstractmethod
    def prepare(self, inputs: MergeInputs, progress: ProgressCallback) -> Combine | None:
        """Compute statistics of the whole model that the method needs, and return the function that merges one tensor.

        Parameters
        ----------
        inputs : MergeInputs
            The fine-tunes, and their base.
        progress : callable
            Called with the bytes read, `passes` times for every tensor.

        Returns
        -------
        callable or None
            Combines the task vectors of one tensor; None if the mean of the fine-tunes' weights is the result.
        """

    def scaled_names(
        self, names: Collection[str], matrices: Collection[str], with_grams: Collection[str]
    ) -> Collection[str]:
        """Return the names of the tensors with merged task vectors that alpha scales; by default all.

        Parameters
        ----------
        names : collection of str
            All tensors that have task vectors.
        matrices : collection of str
            Those that are matrices, or stacks of matrices.
        with_grams : collection of str
            Those matrices that have a Gram matrix of their inputs in every fine-tune.
        """
        return names

    def layer_factors(self, norms: Mapping[str, float]) -> dict[str, float]:
        """Return factors on merged task vectors, by tensor name; 1 for names that are missing.

        Parameters
        ----------
        norms : mapping
            Frobenius norms of the merged task vectors of all matrices, by name.
        """
        return {}

    def with_alpha(self, alpha: float) -> "MergeMethod":
        """Return the same method with another alpha.

        Parameters
        ----------
        alpha : float
            The new factor on the merged task vector.

        Raises
        ------
        ConfigError
            The method has no alpha.
        """
        if self.alpha is None:
            raise ConfigError(f"{self.name}: expected a method with an alpha to search, got one without")
        # A mapping, since the base class has no field of this name.
        options: dict[str, object] = {"alpha": alpha}
        return replace(self, **options)

    def describe(self) -> str:
        """Return the name and all options as one line, which files record.

        >>> from dtscodec.merging.methods import Average, Ties
        >>> Ties().describe(), Average().describe()
        ('ties alpha=1.0 keep=0.2 combine=mean', 'average')
        """
        return " ".join([self.name, *(f"{field.name}={getattr(self, field.name)}" for field in fields(self))])


def check_number(name: str, value: float, least: float = -math.inf) -> None:
    """Raise ConfigError unless a value is a finite number, and at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name}: expected a finite number, got {value!r}")
    if value < least:
        raise ConfigError(f"{name}: expected at least {least}, got {value}")


def check_share(name: str, value: float) -> None:
    """Raise ConfigError unless a value is above 0 and at most 1."""
    check_number(name, value)
    if not 0 < value <= 1:
        raise ConfigError(f"{name}: expected a share above 0 and up to 1, got {value}")


def check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    """Raise ConfigError unless a value is one of `words`."""
    if value not in words:
        raise ConfigError(f"{name}: expected {' or '.join(words)}, got {value!r}")
