"""Survey, encode or measure one tensor: in this process, or in a worker that opens the checkpoints itself.

Workers receive names and choices, and return what is small: candidate encodings, or codes. The same functions run in
both places, each on one thread, so that the pack does not depend on where they ran.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dtscodec.encoding.budget.candidate import Candidate, CandidateList, Candidates
from dtscodec.encoding.budget.component_spectrum import ComponentSpectrum, SpectrumRequest
from dtscodec.encoding.budget.matrix_candidates import MatrixCandidates
from dtscodec.encoding.budget.segment_candidates import candidates_of
from dtscodec.encoding.config import BaseOnly, EncodeConfig
from dtscodec.encoding.encoded_tensor import EncodedTensor, EncodingPlan, Squares, encode_segments
from dtscodec.encoding.notes import Note
from dtscodec.encoding.presets.best import plan_best
from dtscodec.encoding.presets.paper import plan_paper
from dtscodec.encoding.presets.recipe import Recipe
from dtscodec.encoding.segments.encoded_block import EncodedBlock
from dtscodec.encoding.segments.segmented_tensor import SegmentedTensor, segment_tensor, segment_unchanged
from dtscodec.encoding.tensor_inputs import LeavesByName, TensorInputs
from dtscodec.errors import EncodeError, Remedy
from dtscodec.format.blocks import Band, BaseRows, LowRank, Raw, Same, Tie, Values
from dtscodec.format.content_digest import leaf
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import TensorEntry
from dtscodec.format.streams import Streams
from dtscodec.linalg.devices import one_thread


@dataclass(frozen=True, slots=True)
class Identity:
    """Digests of a tensor and its counterpart, from their first reading.

    Parameters
    ----------
    bases : mapping of str to bytes
        Leaves of the base tensors of the counterpart, by name.
    known : mapping of str to KnownLeaf
        The same leaves for `Base.learn_leaf`, without those whose file changed meanwhile.
    content : bytes or None
        Leaf of the tensor; None if it equals its counterpart.
    """

    bases: Mapping[str, bytes]
    known: LeavesByName
    content: bytes | None


@dataclass(frozen=True, slots=True)
class TensorSurvey:
    """Candidate encodings of one tensor, from the survey pass.

    Parameters
    ----------
    identity : Identity
        Digests of the tensor and its counterpart.
    split : int
        Number of leading dimensions that make up the rows of the tensor as a matrix.
    candidates : tuple of Candidates
        One for each segment, in order.
    problem : EncodeError or None
        Why the tensor cannot be encoded; it does not count if the tensor is tied to another one.
    """

    identity: Identity
    split: int = 1
    candidates: tuple[Candidates, ...] = ()
    problem: EncodeError | None = None


@dataclass(frozen=True, slots=True)
class TensorResult:
    """One tensor from the encoding pass.

    Parameters
    ----------
    identity : Identity
        Digests of the tensor and its counterpart.
    tensor : EncodedTensor or None
        The encoded tensor; None if there is a problem.
    problem : EncodeError or None
        As of `TensorSurvey`.
    """

    identity: Identity
    tensor: EncodedTensor | None = None
    problem: EncodeError | None = None


def _by_name(*parts: Any) -> dict[tuple[str, str], Any]:
    return {(part.__module__, part.__qualname__): part for part in parts}


_ARRAY_PARTS = np.empty(1).__reduce_ex__(5)[0], np.ndarray, np.dtype

RESULT_PARTS = _by_name(
    *(TensorSurvey, TensorResult, Identity, Squares, EncodedTensor, TensorEntry, TensorSpec, EncodeError),
    *(CandidateList, MatrixCandidates, ComponentSpectrum, Candidate, Recipe),
    *(LowRank, Values, Raw, Same, Tie, Band, BaseRows, Streams, *_ARRAY_PARTS),
    *(Note, Remedy),
)
"""The classes that results and reports consist of, by module and name: a journal unpickles no others."""


def survey_tensor(inputs: TensorInputs, name: str, known: LeavesByName, request: SpectrumRequest) -> TensorSurvey:
    """Return the candidate encodings of a tensor's segments.

    Parameters
    ----------
    inputs : TensorInputs
        Both checkpoints and the settings.
    name : str
        Name of the tensor in the fine-tune.
    known : mapping of str to KnownLeaf
        Leaves of the base tensors of its counterpart that have been hashed before.
    request : SpectrumRequest
        How many singular values to compute.
    """
    with one_thread():
        identity, segmented = _segment(inputs, name, known)
        if isinstance(segmented, EncodeError):
            return TensorSurvey(identity, problem=segmented)
        candidates = tuple(candidates_of(segment, inputs.config, request) for segment in segmented.segments)
        return TensorSurvey(identity, segmented.split, candidates)


def encode_tensor(
    inputs: TensorInputs, name: str, known: LeavesByName, choices: Sequence[Candidate] | None
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
        spec, split, plans = segmented.spec, segmented.split, _plans(segmented, inputs.config, choices)
        del segmented  # The fine-tune's bytes are not needed any more, and what follows needs memory.
        try:
            # Matrices are decomposed here for the second time. The survey returned singular values only: which singular
            # vectors are stored depends on all other tensors, and until that is known, the vectors of all matrices
            # would have to wait in memory, as much as the whole fine-tune in float32 or more.
            return TensorResult(identity, encode_segments(name, spec, split, plans))
        except EncodeError as error:
            return TensorResult(identity, problem=error)


def _plans(
    segmented: SegmentedTensor, config: EncodeConfig, choices: Sequence[Candidate] | None
) -> Sequence[EncodingPlan]:
    """Return how each segment is encoded: by the preset `paper`, or as was chosen; without deltas, all are encoded."""
    if isinstance(config.preset, BaseOnly):
        return [segment for segment in segmented.segments if isinstance(segment, EncodedBlock)]
    if choices is None:
        return [plan_paper(segment, config) for segment in segmented.segments]
    return [plan_best(segment, choice, config) for segment, choice in zip(segmented.segments, choices, strict=True)]


def measure_tensor(inputs: TensorInputs, name: str, known: LeavesByName, choices: Sequence[Candidate]) -> Squares:
    """Return the squared norms of a tensor's delta and of the error of encoding it.

    The error of coordinate descent is known only after running it, so the tensor is encoded. Its streams are dropped:
    the search for an error target tries several encodings, and workers and journal need not carry all their streams.

    Parameters
    ----------
    inputs, name, known, choices
        As for `encode_tensor`.

    Raises
    ------
    EncodeError
        The tensor cannot be encoded.
    """
    result = encode_tensor(inputs, name, known, choices)
    if result.problem:
        raise result.problem
    return result.tensor.squares if result.tensor else Squares()


def _segment(inputs: TensorInputs, name: str, known: LeavesByName) -> "tuple[Identity, SegmentedTensor | EncodeError]":
    pair = inputs.read(name, known)
    # The counterpart's leaves come with its bytes; the tensor's own is needed only if it changed.
    leaves = {base: known_leaf for base in pair.leaves if (known_leaf := inputs.base.known_leaf(base)) is not None}
    identity = Identity(pair.leaves, leaves, None)
    unchanged = segment_unchanged(pair.fine, pair.base, pair.parts)
    if unchanged is not None:
        return identity, unchanged
    identity = replace(identity, content=leaf(pair.fine.spec, pair.fine.data))
    try:
        is_companion = name in inputs.companions
        return identity, segment_tensor(pair.fine, pair.base, inputs.config, is_companion, pair.parts)
    except EncodeError as error:
        # Not raised: a tied tensor is not coded, and its problem does not count.
        return identity, error
