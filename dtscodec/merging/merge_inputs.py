"""The inputs of a merge: fine-tunes and their base, the tensors that merge, and task vectors."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import Tensor

from dtscodec.activations.gram_file import Gram, GramFile
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.quantized.companions import companions_of
from dtscodec.checkpoints.stored_tensor import StoredTensor, is_finite
from dtscodec.checkpoints.torch_dtypes import widest
from dtscodec.encoding.config import check_patterns
from dtscodec.encoding.delta import delta_of
from dtscodec.errors import ConfigError, EncodeError, MergeError, Remedy
from dtscodec.format.dtypes import CODED_DTYPES, TensorSpec
from dtscodec.merging.by_matrix import matrix_shape, noise_edges_of
from dtscodec.merging.input_names import names_as_in, names_in_base
from dtscodec.merging.task_vectors import TaskVectors


class MergeInputs:
    """Fine-tunes of one architecture, and their base. Tensors have the names of the first fine-tune.

    Parameters
    ----------
    fine_tunes : sequence of Checkpoint
        One per task.
    base : Checkpoint, optional
        The pre-trained base of the fine-tunes.
    raw : sequence of str
        Patterns of names of tensors to leave out.
    grams : sequence of GramFile
        Gram matrices of the layers' inputs: one file per fine-tune, or none.

    Attributes
    ----------
    specs : dict
        Dtypes and shapes of all tensors of the result; names ascending.
    merged : list of str
        Tensors that the base has: they are merged by the method.
    averaged : list of str
        Tensors that the base lacks, or all without a base: they become the mean of the fine-tunes.
    copied : list of str
        Integer tensors and the scales of quantized weights: they are copied from the first fine-tune.
    left_out : dict
        Reasons why tensors are not in the result, by name.
    ties : dict
        Tensors that share memory in every fine-tune: later name -> first name.

    Raises
    ------
    MergeError
        The fine-tunes are of different architectures.
    BaseMismatchError
        The base is of another architecture.
    ConfigError
        A pattern matches no tensor, or the number of `grams` is not that of the fine-tunes.
    """

    def __init__(
        self,
        fine_tunes: Sequence[Checkpoint],
        base: Checkpoint | None = None,
        raw: Sequence[str] = (),
        grams: Sequence[GramFile] = (),
    ) -> None:
        if grams and len(grams) != len(fine_tunes):
            raise ConfigError(f"expected Gram matrices for each of {len(fine_tunes)} fine-tunes, got {len(grams)}")
        self.fine_tunes, self.base, self._grams = tuple(fine_tunes), base, tuple(grams)
        first = self.fine_tunes[0]
        self._own = [names_as_in(first, other) for other in self.fine_tunes]
        self._base_names: Mapping[str, str | None] = names_in_base(first, base) if base is not None else {}
        self._companions = companions_of(first.specs, {}, dict.fromkeys(first.specs))
        self.specs: dict[str, TensorSpec] = {}
        self.merged: list[str] = []
        self.averaged: list[str] = []
        self.copied: list[str] = []
        self.left_out: dict[str, str] = {}
        check_patterns(raw, first.specs)
        for name in sorted({name for own in self._own for name in own}):
            self._classify(name, raw)
        self.ties = {name: to for name, to in first.aliases.items() if self._is_tied(name, to)}

    def __len__(self) -> int:
        return len(self.fine_tunes)

    @property
    def names(self) -> list[str]:
        """Names of the tensors that are computed: all of the result but tied ones."""
        return [name for name in self.specs if name not in self.ties]

    @property
    def task_vector_names(self) -> list[str]:
        """Names of the computed tensors that have task vectors."""
        return [name for name in self.merged if name not in self.ties]

    @property
    def matrix_names(self) -> list[str]:
        """Names of the tensors with task vectors that are matrices, or stacks of matrices."""
        return [name for name in self.task_vector_names if matrix_shape(self.specs[name].shape) is not None]

    def nbytes(self, name: str) -> int:
        """Return the bytes of a tensor in all fine-tunes, in the result's dtype."""
        return len(self) * self.specs[name].nbytes

    def _classify(self, name: str, raw: Sequence[str]) -> None:
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
            self._list_for(name).append(name)

    def _list_for(self, name: str) -> list[str]:
        spec = self.specs[name]
        if spec.dtype not in CODED_DTYPES or name in self._companions:
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

    def first_tensor(self, name: str) -> StoredTensor:
        """Return a tensor of the first fine-tune."""
        return self._stored(0, name)

    def fine_tune_tensors(self, name: str) -> Iterator[Tensor]:
        """Yield a tensor of each fine-tune, in its own dtype.

        Raises
        ------
        MergeError
            An element is NaN or infinite.
        """
        for task in range(len(self)):
            value = self._stored(task, name).tensor()
            if not is_finite(value):
                where = f"{self.fine_tunes[task].location}: {name}"
                raise MergeError(f"{where}: expected finite elements, got NaN or infinity", _LEAVE_OUT)
            yield value

    def task_vectors(self, name: str, noise_edges: bool = False) -> TaskVectors:
        """Return the task vectors of a tensor.

        Parameters
        ----------
        name : str
            One of `task_vector_names`.
        noise_edges : bool
            Compute the noise edges of its matrices.

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
                raise MergeError(f"{fine.location}: {error.problem}", _LEAVE_OUT) from error
            found.append(noise_edges_of(stored.tensor(), deltas[-1]) if noise_edges else [])
        return TaskVectors(name, deltas, found)

    def base_tensor(self, name: str) -> Tensor:
        """Return the base's tensor, in its own dtype."""
        return self._of_base(name).tensor()

    def gram(self, task: int, name: str) -> Gram | None:
        """Return the Gram matrix of a layer's inputs in one fine-tune; None if it was not collected.

        Parameters
        ----------
        task : int
            Position of the fine-tune.
        name : str
            The layer's weight.

        Raises
        ------
        MergeError
            The Gram matrix is of a layer with another number of inputs.
        """
        own = self._own[task][name]
        found = self._grams[task].read(own) if self._grams else None
        columns = self.specs[name].shape[-1]
        if found is not None and len(found.moment) != columns:
            detail = f"expected a Gram matrix of {columns} inputs, got one of {len(found.moment)}"
            remedy = Remedy("give {grams} in the fine-tunes' order")
            raise MergeError(f"{self.fine_tunes[task].location}: {own}: {detail}", remedy)
        return found

    def has_grams(self, name: str) -> bool:
        """Return whether every fine-tune has the Gram matrix of a layer's inputs."""
        return bool(self._grams) and all(own[name] in g for own, g in zip(self._own, self._grams, strict=True))

    def _of_base(self, name: str) -> StoredTensor:
        other = self._base_names.get(name)
        if self.base is None or other is None:
            raise KeyError(name)
        return StoredTensor(other, self.base.specs[other], self.base.read(other))

    def _stored(self, task: int, name: str) -> StoredTensor:
        fine, own = self.fine_tunes[task], self._own[task][name]
        return StoredTensor(own, fine.specs[own], fine.read(own))


_LEAVE_OUT = Remedy("leave it out of the merge with {raw}")
