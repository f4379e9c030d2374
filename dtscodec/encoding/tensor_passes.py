"""Passes over all tensors of a fine-tune, with results from the journal where it has them.

A pass visits the names in ascending order. Tensors that equal their counterpart, or another tensor of the fine-tune,
are recognized when they are first read. They are settled then, and later passes skip them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from dtscodec.checkpoints.base import Base
from dtscodec.checkpoints.checkpoint import Checkpoint
from dtscodec.checkpoints.names.name_match import NameMatch
from dtscodec.encoding.budget.candidate import Candidate
from dtscodec.encoding.budget.survey import Survey
from dtscodec.encoding.config import EncodeConfig
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares, encode_same, encode_same_parts, encode_tie
from dtscodec.encoding.exact_tensors import ExactTensors
from dtscodec.encoding.journal import Journal, NoJournal
from dtscodec.encoding.tensor_inputs import LeavesByName, TensorInputs
from dtscodec.encoding.tensor_task import Identity, TensorResult, encode_tensor, measure_tensor, survey_tensor
from dtscodec.encoding.tied_tensors import TiedTensors
from dtscodec.executors.processes import in_order
from dtscodec.progress import ProgressCallback

Result = TypeVar("Result")

PREFETCHED = 4
"""Number of tensors after the last result that are read ahead, since workers compute them next."""


class TensorPasses:
    """Surveys, measures and encodes all tensors of a fine-tune.

    Parameters
    ----------
    base : Base
        The base.
    fine : Checkpoint
        The fine-tune.
    match : NameMatch
        The counterpart of each of its tensors.
    config : EncodeConfig
        Settings of the encode.
    exact : ExactTensors
        The tensors that are stored exactly.
    executor : concurrent.futures.Executor or None
        Its workers compute the results; None for this process.
    journal : Journal or NoJournal
        Stores results, and returns those of an interrupted run.
    """

    def __init__(
        self,
        base: Base,
        fine: Checkpoint,
        match: NameMatch,
        config: EncodeConfig,
        exact: ExactTensors,
        executor: Executor | None,
        journal: Journal | NoJournal,
    ) -> None:
        self._base, self._fine, self._match, self._config = base, fine, match, config
        self._executor, self._journal = executor, journal
        self._inputs = TensorInputs(fine, base, {**match.counterpart, **match.parts}, config, exact.companions)
        self._ties = TiedTensors(fine, match, exact)
        self._leaves: dict[str, bytes] = {}
        self._settled: dict[str, EncodedTensor] = {}

    def survey(self, progress: ProgressCallback) -> Survey:
        """Return the candidate encodings of all segments.

        Parameters
        ----------
        progress : callable
            Called with the bytes of each tensor.

        Raises
        ------
        EncodeError
            A tensor cannot be encoded.
        """
        survey = Survey(self._config, tuple(self._fine.specs.values()))
        for name, found in self._results(survey_tensor, lambda name: (survey.request,)):
            if settled := self._settle(name, found.identity):
                survey.add_settled(settled.entry)
            elif found.problem:
                # The problem of a tied tensor would not count, since it is not coded itself.
                raise found.problem
            else:
                survey.add(name, self._fine.specs[name], found.split, found.candidates)
            progress(self._fine.specs[name].nbytes)
        return survey

    def relative_error(self, choices: Mapping[str, Sequence[Candidate]]) -> float:
        """Return the relative error of these encodings, for which all tensors are encoded.

        Parameters
        ----------
        choices : mapping of str to sequence of Candidate
            By tensor, one for each segment.
        """
        results = self._results(measure_tensor, lambda name: (choices[name],))
        return sum((squares for _, squares in results), Squares()).relative_error

    def encode(self, choices: Mapping[str, Sequence[Candidate]] | None) -> Iterator[EncodedTensor]:
        """Yield all tensors in their encoded form.

        Parameters
        ----------
        choices : mapping of str to sequence of Candidate, or None
            By tensor, one for each segment; None for the preset `paper`.

        Raises
        ------
        EncodeError
            A tensor cannot be encoded.
        """
        results = self._results(encode_tensor, lambda name: (None if choices is None else choices[name],))
        # Settled tensors take their places among the others: names ascend in a pack.
        for name in self._fine.specs:
            yield self._settled.get(name) or self._encoded(*next(results))

    def leaves(self, names: Collection[str]) -> dict[str, bytes]:
        """Return the leaves of base tensors by name; they are known after a pass."""
        return {name: self._leaves[name] for name in names}

    def _encoded(self, name: str, result: TensorResult) -> EncodedTensor:
        settled = self._settle(name, result.identity)
        if settled:
            return settled
        if result.problem:
            raise result.problem
        assert result.tensor is not None
        return result.tensor

    def _results(
        self, task: Callable[..., Result], arguments: Callable[[str], tuple[Any, ...]]
    ) -> Iterator[tuple[str, Result]]:
        """Yield the results of a task for every tensor that is not settled.

        Parameters
        ----------
        task : callable
            A function of `tensor_task`.
        arguments : callable
            Name -> arguments of the task after the inputs, the name and the leaf.
        """
        names = [name for name in self._fine.specs if name not in self._settled]

        # Take what an interrupted run has stored.
        done = 0
        for name, result in zip(names, self._journal.stored(task.__name__, names), strict=False):
            yield name, result
            done += 1

        # Compute the rest.
        rest = names[done:]
        calls = ((self._inputs.only(name), name, self._known_leaves(name), *arguments(name)) for name in rest)
        self._prefetch(rest[:PREFETCHED])
        for place, (name, result) in enumerate(zip(rest, in_order(self._executor, task, calls), strict=True)):
            self._prefetch(rest[place + PREFETCHED : place + PREFETCHED + 1])
            # Stored before it is used: an interrupted run resumes after it.
            self._journal.store(task.__name__, name, result)
            yield name, result

    def _prefetch(self, names: Sequence[str]) -> None:
        """Start reading tensors while others are computed."""
        for name in names:
            self._fine.prefetch(name)
            for base in self._match.bases(name):
                self._base.checkpoint.prefetch(base)

    def _known_leaves(self, name: str) -> LeavesByName:
        known = {base: self._base.known_leaf(base) for base in self._match.bases(name)}
        return {base: leaf for base, leaf in known.items() if leaf is not None}

    def _settle(self, name: str, identity: Identity) -> EncodedTensor | None:
        """Record the leaves of a tensor that was read. Return its encoded form if it equals another one, else None."""
        spec = self._fine.specs[name]
        # Leaves: for the base digest, and for later passes, which need not hash again.
        self._leaves.update(identity.bases)
        for base, leaf in identity.known.items():
            self._base.learn_leaf(base, leaf)
        # Equal to its counterpart, or to another tensor of the fine-tune.
        if identity.content is None and self._match.bases(name):
            counterpart = self._match.counterpart[name]
            parts = self._match.parts.get(name, ())
            self._settled[name] = (
                encode_same_parts(name, spec, parts) if counterpart is None else encode_same(name, spec, counterpart)
            )
        elif identity.content is not None and (original := self._ties.original(name, identity.content)) != name:
            self._settled[name] = encode_tie(name, spec, original)
        return self._settled.get(name)
