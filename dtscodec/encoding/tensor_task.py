"""What an encode does with one tensor: in this process, or in a worker that opens the checkpoints itself.

Workers are sent names and choices and send back what is small: options, or codes. The same functions run in both
places, each on one thread, so that the pack does not depend on where they ran.
"""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dtscodec.activations.gram_file import GramFile
from dtscodec.activations.metric import Metric
from dtscodec.checkpoints.base import Base, KnownLeaf
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.content_digest import leaf
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.budget.candidate import Candidate, CandidateList, Candidates
from dtscodec.encoding.budget.matrix_candidates import ComponentSpectrum, MatrixCandidates, SpectrumRequest
from dtscodec.encoding.budget.segment_candidates import candidates_of
from dtscodec.encoding.config import EncodeConfig, Paper
from dtscodec.encoding.encoded_tensor import EncodedTensor, EncodingPlan, Squares, encode_segments
from dtscodec.encoding.presets.best import plan_best
from dtscodec.encoding.presets.paper import plan_paper
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.segmented_tensor import SegmentedTensor, segment_tensor, segment_unchanged
from dtscodec.errors import CheckpointError, EncodeError, Remedy
from dtscodec.format.blocks import Band, BaseRows, LowRank, Raw, Same, Tie, Values
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.streams import Streams
from dtscodec.linalg.devices import one_thread
from dtscodec.storage.open_file import Access

Place: TypeAlias = "tuple[str, Path | None]"
"""Location of a checkpoint, and the staging folder of what is read of it."""


class Inputs:
    """Both checkpoints, and which tensor belongs to which. Another process opens the same files again.

    Parameters
    ----------
    fine : Checkpoint
    base : Base
    counterpart : mapping
        For each tensor of the fine-tune the base tensor that it is coded against, or None.
    config : EncodeConfig
    encode : str, optional
        What tells one encode from others: a worker that outlives it must open files afresh, which may have changed.
    """

    def __init__(
        self,
        fine: Checkpoint,
        base: Base,
        counterpart: Mapping[str, str | None],
        config: EncodeConfig,
        encode: str | None = None,
    ) -> None:
        self.fine, self.base, self.counterpart, self.config = fine, base, counterpart, config
        self._encode = encode or uuid.uuid4().hex

    def only(self, name: str) -> "Inputs":
        """The same for one tensor: a task that is sent away need not carry the names of all."""
        return Inputs(self.fine, self.base, {name: self.counterpart[name]}, self.config, self._encode)

    def __reduce__(self) -> "tuple[object, tuple[str, Place, Place, dict[str, str | None], EncodeConfig]]":
        for checkpoint in (self.fine, self.base.checkpoint):
            if checkpoint.directory is None:
                detail = "expected files, got tensors in memory, which workers cannot read"
                raise EncodeError(f"{checkpoint.location}: {detail}", Remedy("save them, or use no workers"))
        places = _everywhere(self.fine), _everywhere(self.base.checkpoint)
        return _inputs, (self._encode, *places, dict(self.counterpart), self.config)

    def metric(self, name: str) -> Metric | None:
        """How the inputs of a weight's layer see its delta, where that is known."""
        preset = self.config.preset
        if isinstance(preset, Paper) or preset.grams is None:
            return None
        with GramFile(preset.grams) as grams:
            gram = grams.read(name)
        return None if gram is None else Metric.of(gram, preset.damping)

    def read(self, name: str, known: KnownLeaf | None) -> tuple[StoredTensor, StoredTensor | None, bytes | None]:
        """A tensor, its counterpart, and the counterpart's leaf, which may be known."""
        other = self.counterpart[name]
        fine = StoredTensor(name, self.fine.specs[name], self.fine.read(name))
        if other is None:
            return fine, None, None
        if known:
            self.base.learn_leaf(other, known)
        data, found = self.base.read_with_leaf(other)
        return fine, StoredTensor(other, self.base.specs[other], data), found


def _everywhere(checkpoint: Checkpoint) -> Place:
    """A checkpoint's place as processes with other working directories name it."""
    location, staging = checkpoint.location, checkpoint.staging
    return location if "://" in location else os.path.abspath(location), staging and staging.absolute()


def _inputs(encode: str, fine: Place, base: Place, counterpart: dict[str, str | None], config: EncodeConfig) -> Inputs:
    """The inputs in a worker.

    Raises
    ------
    CheckpointError
        They cannot be opened there.
    """
    return Inputs(*_opened(encode, fine, base), counterpart, config, encode)


@lru_cache(maxsize=1)
def _opened(encode: str, fine: Place, base: Place) -> tuple[Checkpoint, Base]:
    """Both checkpoints in a worker; those of the encode before are closed as they are let go."""
    try:
        (fine_path, fine_access), (base_path, base_access) = _here(fine), _here(base)
        return open_checkpoint(fine_path, fine_access), Base(base_path, base_access)
    except CheckpointError as error:
        remedy = Remedy("workers read the same paths, so keep checkpoints where each of them finds them")
        raise CheckpointError(f"{error.problem} (by a worker on {socket.gethostname()})", remedy) from error


def _here(place: Place) -> tuple[str, Access]:
    """A place without its folder if that is on another machine, which then fetches by itself."""
    location, staging = place
    return location, Access(staging if staging is not None and staging.is_dir() else None)


@dataclass(frozen=True, slots=True)
class Identity:
    """Digests of a tensor and its counterpart, from their first reading.

    Parameters
    ----------
    base : bytes or None
        Leaf of the counterpart.
    known : KnownLeaf or None
        The same for `Base.learn_leaf`, unless its file changed meanwhile.
    content : bytes or None
        Leaf of the tensor; None if it equals its counterpart.
    """

    base: bytes | None
    known: KnownLeaf | None
    content: bytes | None


@dataclass(frozen=True, slots=True)
class TensorSurvey:
    """Candidate encodings of one tensor, from the survey pass.

    Parameters
    ----------
    identity : Identity
    split : int
        See `TensorEntry`.
    options : tuple of Candidates
        By segment.
    problem : EncodeError or None
        Why the tensor cannot be encoded; to be ignored if it is tied to another one.
    """

    identity: Identity
    split: int = 1
    options: tuple[Candidates, ...] = ()
    problem: EncodeError | None = None


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One tensor from the encoding pass: encoded, or why it cannot be; see `TensorSurvey`."""

    identity: Identity
    tensor: EncodedTensor | None = None
    problem: EncodeError | None = None


def _places(*parts: Any) -> dict[tuple[str, str], Any]:
    return {(part.__module__, part.__qualname__): part for part in parts}


_ARRAY_PARTS = np.empty(1).__reduce_ex__(5)[0], np.ndarray, np.dtype

RESULT_PARTS = _places(
    *(TensorSurvey, TensorResult, Identity, Squares, EncodedTensor, TensorEntry, TensorSpec, EncodeError),
    *(CandidateList, MatrixCandidates, ComponentSpectrum, Candidate, Recipe),
    *(LowRank, Values, Raw, Same, Tie, Band, BaseRows, Streams, *_ARRAY_PARTS),
)
"""The classes that results consist of, by module and name: a journal unpickles no others."""


def survey_tensor(inputs: Inputs, name: str, known: KnownLeaf | None, demand: SpectrumRequest) -> TensorSurvey:
    """Return the candidate encodings of a tensor's segments.

    Parameters
    ----------
    inputs : Inputs
    name : str
    known : KnownLeaf or None
        Leaf of its counterpart, if that has been hashed before.
    demand : SpectrumRequest
        How many singular values to compute.
    """
    with one_thread():
        identity, segmented = _segment(inputs, name, known)
        if isinstance(segmented, EncodeError):
            return TensorSurvey(identity, problem=segmented)
        options = tuple(candidates_of(segment, inputs.config, demand) for segment in segmented.segments)
        return TensorSurvey(identity, segmented.split, options)


def encode_tensor(
    inputs: Inputs, name: str, known: KnownLeaf | None, choices: Sequence[Candidate] | None
) -> TensorResult:
    """Encode a tensor.

    Parameters
    ----------
    inputs, name, known
        As for `survey_tensor`.
    choices : sequence of Candidate or None
        The encoding that was chosen for each segment; None for the preset `paper`.
    """
    with one_thread():
        identity, segmented = _segment(inputs, name, known)
        if isinstance(segmented, EncodeError):
            return TensorResult(identity, problem=segmented)
        spec, split = segmented.spec, segmented.split
        try:
            plans = _plans(inputs, segmented, choices)
        except EncodeError as error:
            return TensorResult(identity, problem=error)
        del segmented  # The fine-tune's bytes are not needed any more, and what follows needs memory.
        try:
            # Matrices are decomposed here for the second time. The survey returned singular values only: which singular
            # vectors are stored depends on all other tensors, and until that is known, the vectors of all matrices
            # would have to wait in memory, as much as the whole fine-tune in float32 or more.
            return TensorResult(identity, encode_segments(name, spec, split, plans))
        except EncodeError as error:
            return TensorResult(identity, problem=error)


def _plans(inputs: Inputs, segmented: SegmentedTensor, choices: Sequence[Candidate] | None) -> Sequence[EncodingPlan]:
    """Return how each segment is encoded: by the preset `paper`, or as was chosen."""
    config = inputs.config
    if choices is None:
        return [plan_paper(segment, config) for segment in segmented.segments]
    metric = inputs.metric(segmented.name) if segmented.is_layer else None
    pairs = zip(segmented.segments, choices, strict=True)
    return [plan_best(segment, choice, config, metric) for segment, choice in pairs]


def measure_tensor(inputs: Inputs, name: str, known: KnownLeaf | None, choices: Sequence[Candidate]) -> Squares:
    """Return the squared norms of what encoding a tensor would lose.

    What coordinate descent leaves is known only by running it, so the tensor is encoded. Its streams are dropped: the
    search for an error tries several encodings, and workers and journal need not carry streams of all of them.
    """
    result = encode_tensor(inputs, name, known, choices)
    if result.problem:
        raise result.problem
    return result.tensor.squares if result.tensor else Squares()


def _segment(inputs: Inputs, name: str, known: KnownLeaf | None) -> "tuple[Identity, SegmentedTensor | EncodeError]":
    fine, base, found = inputs.read(name, known)
    identity = Identity(found, inputs.base.known_leaf(base.name) if base else None, None)
    unchanged = segment_unchanged(fine, base)
    if unchanged is not None:
        return identity, unchanged
    identity = replace(identity, content=leaf(fine.spec, fine.data))
    try:
        return identity, segment_tensor(fine, base, inputs.config)
    except EncodeError as error:
        return identity, error
