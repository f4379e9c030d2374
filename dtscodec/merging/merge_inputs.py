"""Fine-tunes and their base, opened together: which tensors merge, and by how much each task moves them."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from dtscodec.activations.gram_file import Gram, Grams
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.name_matching import match_names
from dtscodec.checkpoints.stored_tensor import StoredTensor, is_finite
from dtscodec.checkpoints.torch_dtypes import widest
from dtscodec.encoding.config import check_patterns
from dtscodec.encoding.delta import delta_of
from dtscodec.errors import BaseMismatchError, ConfigError, DtsError, EncodeError, MergeError
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.linalg.rounding_noise import rounding_noise
from dtscodec.merging.matrices import matrix_shape
from dtscodec.merging.task_vectors import Moves


class Tasks:
    """What is merged. The result has the first fine-tune's names.

    Parameters
    ----------
    fine_tunes : sequence of Checkpoint
    base : Checkpoint, optional
    raw : sequence of str
        Patterns of names that are left out.
    grams : sequence of Grams
        What layers' inputs are like: one per fine-tune, or none.

    Attributes
    ----------
    specs : dict
        Of all tensors of the result; names ascending.
    merged, averaged, copied : list of str
        Those that the base has; those that it lacks, or all if there is no base; those of no floating dtype.
    left_out : dict
        Names that the result lacks -> why.
    ties : dict
        Tensors that are the same memory in every fine-tune: later name -> first name.

    Raises
    ------
    MergeError
        Fine-tunes of different architectures.
    BaseMismatchError
        The base is of another one.
    ConfigError
        A pattern fits no tensor, or there is another number of `grams`.
    """

    def __init__(
        self,
        fine_tunes: Sequence[Checkpoint],
        base: Checkpoint | None = None,
        raw: Sequence[str] = (),
        grams: Sequence[Grams] = (),
    ) -> None:
        if grams and len(grams) != len(fine_tunes):
            raise ConfigError(f"expected Gram matrices for each of {len(fine_tunes)} fine-tunes, got {len(grams)}")
        self.fine_tunes, self.base, self._grams = tuple(fine_tunes), base, tuple(grams)
        first = self.fine_tunes[0]
        self._own = [_names_as_in(first, other) for other in self.fine_tunes]
        self._base_names: Mapping[str, str | None] = _names_in_base(first, base) if base is not None else {}
        self.specs: dict[str, TensorSpec] = {}
        self.merged: list[str] = []
        self.averaged: list[str] = []
        self.copied: list[str] = []
        self.left_out: dict[str, str] = {}
        check_patterns(raw, first.specs)
        for name in sorted({name for own in self._own for name in own}):
            self._sort_in(name, raw)
        self.ties = {name: to for name, to in first.aliases.items() if self._is_tied(name, to)}

    def __len__(self) -> int:
        return len(self.fine_tunes)

    @property
    def names(self) -> list[str]:
        """Tensors that are computed: all of the result but ties."""
        return [name for name in self.specs if name not in self.ties]

    @property
    def moved(self) -> list[str]:
        """Of these the ones whose moves can be told."""
        return [name for name in self.merged if name not in self.ties]

    @property
    def matrices(self) -> list[str]:
        """Of these the ones that are merged as matrices."""
        return [name for name in self.moved if matrix_shape(self.specs[name].shape) is not None]

    def _sort_in(self, name: str, raw: Sequence[str]) -> None:
        specs = [t.specs[own[name]] for t, own in zip(self.fine_tunes, self._own, strict=True) if name in own]
        dtypes = {spec.dtype for spec in specs}
        if any(fnmatchcase(name, pattern) for pattern in raw):
            self.left_out[name] = "as asked"
        elif len(specs) < len(self):
            self.left_out[name] = "not in every fine-tune"
        elif len({spec.shape for spec in specs}) > 1:
            self.left_out[name] = "shapes differ"
        elif not dtypes <= CODED_DTYPES and len(dtypes) > 1:
            self.left_out[name] = "dtypes differ"
        else:
            self.specs[name] = TensorSpec(widest(dtypes), specs[0].shape)
            self._kind(name).append(name)

    def _kind(self, name: str) -> list[str]:
        spec = self.specs[name]
        if spec.dtype not in CODED_DTYPES:
            return self.copied
        other = self._base_names.get(name)
        theirs = self.base.specs[other] if self.base is not None and other is not None else None
        is_shared = theirs is not None and theirs.shape == spec.shape and theirs.dtype in CODED_DTYPES
        return self.merged if is_shared else self.averaged

    def _is_tied(self, name: str, to: str) -> bool:
        if name not in self.specs or self.specs.get(to) != self.specs[name]:
            return False
        each = zip(self.fine_tunes, self._own, strict=True)
        return all(fine.aliases.get(own[name]) == own[to] for fine, own in each)

    # Reading

    def first(self, name: str) -> StoredTensor:
        """A tensor as the first fine-tune has it."""
        return self._stored(0, name)

    def values(self, name: str) -> Iterator[Tensor]:
        """A tensor of each fine-tune, in its own dtype.

        Raises
        ------
        MergeError
            An element is NaN or infinite.
        """
        for task in range(len(self)):
            value = self._stored(task, name).tensor()
            if not is_finite(value):
                where = f"{self.fine_tunes[task].location}: {name}"
                raise MergeError(f"{where}: expected finite elements, got NaN or infinity; {_WAY_OUT}")
            yield value

    def moves(self, name: str, edges: bool = False) -> Moves:
        """By how much each task moves a tensor.

        Parameters
        ----------
        name : str
            One of `merged`.
        edges : bool
            Whether to tell what rounding explains.

        Raises
        ------
        MergeError
            An element is NaN or infinite.
        """
        base = self._of_base(name)
        deltas: list[Tensor] = []
        found: list[list[float]] = []
        for task, fine in enumerate(self.fine_tunes):
            stored = self._stored(task, name)
            try:
                deltas.append(delta_of(stored, base))
            except EncodeError as error:
                raise MergeError(f"{fine.location}: {str(error).split('; ')[0]}; {_WAY_OUT}") from error
            found.append(_edges(stored.tensor(), deltas[-1]) if edges else [])
        return Moves(name, deltas, found)

    def base_values(self, name: str) -> Tensor:
        """The base's tensor, in its own dtype."""
        return self._of_base(name).tensor()

    def gram(self, task: int, name: str) -> Gram | None:
        """What is known of a layer's inputs in one fine-tune.

        Raises
        ------
        MergeError
            It is that of a layer with other inputs.
        """
        own = self._own[task][name]
        found = self._grams[task].read(own) if self._grams else None
        columns = self.specs[name].shape[-1]
        if found is not None and len(found.moment) != columns:
            detail = f"expected a Gram matrix of {columns} inputs, got one of {len(found.moment)}"
            raise MergeError(
                f"{self.fine_tunes[task].location}: {own}: {detail}; give --grams in the fine-tunes' order"
            )
        return found

    def has_grams(self, name: str) -> bool:
        """Whether the inputs of a layer are known in every fine-tune."""
        return bool(self._grams) and all(own[name] in g for own, g in zip(self._own, self._grams, strict=True))

    def _of_base(self, name: str) -> StoredTensor:
        other = self._base_names.get(name)
        if self.base is None or other is None:
            raise KeyError(name)
        return StoredTensor(other, self.base.specs[other], self.base.read(other))

    def _stored(self, task: int, name: str) -> StoredTensor:
        fine, own = self.fine_tunes[task], self._own[task][name]
        return StoredTensor(own, fine.specs[own], fine.read(own))


_WAY_OUT = "leave it out of the merge with --raw"


def _names_in_base(first: Checkpoint, base: Checkpoint) -> dict[str, str | None]:
    """Names of the first fine-tune -> those of the base."""
    try:
        return match_names(first.specs, base.specs, aliases=first.aliases).counterpart
    except BaseMismatchError as error:
        detail = error.detail.split("; ")[0]
        raise BaseMismatchError(error.reason, base.location, f"{detail}; name the right base", error.section) from error


def _names_as_in(first: Checkpoint, other: Checkpoint) -> dict[str, str]:
    """Names of the first fine-tune -> those of another; beside them what only the other one has."""
    if other is first:
        return {name: name for name in first.specs}
    try:
        match = match_names(other.specs, first.specs, aliases=other.aliases)
    except BaseMismatchError as error:
        detail = f"expected the architecture of {first.location}, got another; {error.detail.split('; ')[0]}"
        raise MergeError(f"{other.location}: {detail}") from error
    except DtsError as error:
        raise MergeError(f"{other.location}: {error}") from error
    own = {name: name for name in other.specs if match.counterpart[name] is None and name not in first.specs}
    return own | {theirs: name for name, theirs in match.counterpart.items() if theirs is not None}


def _edges(stored: Tensor, delta: Tensor) -> list[float]:
    shape = matrix_shape(delta.shape)
    if shape is None:
        return []
    pairs = zip(stored.reshape(shape), delta.reshape(shape), strict=True)
    return [rounding_noise(values, moved).edge for values, moved in pairs]
