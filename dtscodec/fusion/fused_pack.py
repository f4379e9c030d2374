"""The tensors of a fused pack: what each may become, what is chosen for it, and the file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from dtscodec.checkpoints.auxiliary_files import Attachment
from dtscodec.encoding.budget.allocate import DEAREST, at_price, total_cost
from dtscodec.encoding.budget.candidates import Choice, Options, options_of
from dtscodec.encoding.budget.error_target import smallest_for
from dtscodec.encoding.budget.survey import Survey
from dtscodec.encoding.config import DEFAULT_SIZE, EncodeConfig
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares, code_tensor
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.presets.best import plan_best
from dtscodec.encoding.segments.factored_segment import FactoredPart
from dtscodec.encoding.segments.planned import Part
from dtscodec.encoding.segments.segment import Cut
from dtscodec.encoding.targets import MaxError, Size
from dtscodec.format.blocks import Block
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.summary import Summary
from dtscodec.format.tensor_names import utf8
from dtscodec.fusion.heads import Head, is_head
from dtscodec.fusion.source_packs import Seen
from dtscodec.fusion.summed_tensor import Summed, SumPiece, common_spec, exact, sum_tensor
from dtscodec.packs.attachments import attachments_of
from dtscodec.version import __version__

Progress = Callable[[int], None]
Chosen: TypeAlias = Mapping[str, Sequence[Choice]]
"""How each tensor is stored, by piece."""


class Fusion:
    """Goes over the tensors, twice: what each may become, and what it becomes.

    Parameters
    ----------
    seen : Seen
    weights : sequence of float
        One for each pack.
    head : Head or None
        What the unseen task brings itself.
    config : EncodeConfig
        A size or an error.
    task : str or None
    files : bool
        Whether small files travel.
    """

    def __init__(
        self,
        seen: Seen,
        weights: Sequence[float],
        head: Head | None,
        config: EncodeConfig,
        task: str | None,
        files: bool,
    ) -> None:
        self._seen, self._weights, self._head, self._config = seen, weights, head, config
        self.own = tuple(sorted(head.names, key=utf8)) if head else ()
        self.names = sorted({name for name in seen.names if self._is_kept(name)} | {*self.own}, key=utf8)
        self._files: list[Attachment] = []
        if files:
            heaviest = max(range(len(seen.packs)), key=lambda i: abs(self._weights[i]))
            self._files = (head.files() if head else []) or attachments_of(seen.packs[heaviest])
        encoder = f"dtscodec {__version__} fuse weights={','.join(f'{weight:.4g}' for weight in self._weights)}"
        self._summary = Summary(task=task, encoder=encoder, tensors=0)

    def _is_kept(self, name: str) -> bool:
        """Whether a tensor of the packs is one of the unseen task: heads of which only some have parts are not."""
        seen = self._seen
        return self._head is None or seen.is_in_all(name) or not (is_head(name) or seen.is_own(name))

    def _summed(self, name: str) -> Summed:
        if self._head is not None and name in self._head.names:
            return exact(self._head.read(name))
        return sum_tensor(self._seen, name, self._weights, self._config)

    def look(self, progress: Progress) -> Survey:
        """Look at all tensors: the ways to store each piece."""
        survey = Survey(self._config, [self._spec(name) for name in self.names])
        for name in self.names:
            summed = self._summed(name)
            options = [_options(piece, self._config, survey) for piece in summed.pieces]
            survey.add(name, summed.spec, summed.split, options)
            progress(summed.spec.nbytes)
        # Fails now, before the longer work, if the base is needed for it.
        base, _ = self._seen.reference(_used(choice.block for choice in at_price(survey.options, DEAREST).values()))
        self._summary = replace(self._summary, base=base)
        return survey

    def _spec(self, name: str) -> TensorSpec:
        if self._head is not None and name in self._head.names:
            return self._head.specs[name]
        return common_spec(self._seen, name, self._weights)

    def choose(self, survey: Survey) -> Chosen:
        """Decide how each piece is stored."""
        target = self._config.target
        if isinstance(target, MaxError):
            choices = smallest_for(target.error, survey, lambda trial: self._error_of(survey.by_tensor(trial)))
        else:
            metadata = self._metadata()
            budget = survey.budget(metadata) if isinstance(target, Size) else _default_budget(survey, metadata)
            choices = survey.choose(metadata, budget)
        return survey.by_tensor(choices)

    def _error_of(self, chosen: Chosen) -> float:
        return sum((self._coded(name, chosen[name]).squares for name in self.names), Squares()).relative_error

    def _coded(self, name: str, choices: Sequence[Choice]) -> EncodedTensor:
        summed = self._summed(name)
        parts = [
            _part(summed, piece, choice, self._config) for piece, choice in zip(summed.pieces, choices, strict=True)
        ]
        return code_tensor(name, summed.spec, summed.split, parts)

    def write(self, chosen: Chosen, assembler: PackAssembler) -> EncodeReport:
        """Encode all tensors and write the pack."""
        for name in self.names:
            assembler.add(self._coded(name, chosen[name]))
        base, leaves = self._seen.reference(assembler.used_bases)
        return assembler.finish(replace(self._metadata(), summary=replace(self._summary, base=base)), leaves)

    def _metadata(self) -> PackMetadata:
        """Return everything beside the tensors, as the first pack has it."""
        index = self._seen.packs[0].index
        return PackMetadata(self._summary, index.prefix, index.absent, index.metadata, self._files)


def _options(piece: SumPiece, config: EncodeConfig, survey: Survey) -> Options:
    return piece.options(config) if isinstance(piece, FactoredPart) else options_of(piece, config, survey.demand)


def _part(summed: Summed, piece: SumPiece, choice: Choice, config: EncodeConfig) -> Part:
    if isinstance(piece, FactoredPart):
        return piece.plan(choice.block, config.recipe)
    return plan_best(Cut(summed.name, summed.spec, [piece], summed.split), [choice], config)[0]


def _default_budget(survey: Survey, metadata: PackMetadata) -> int:
    """The default size for all that is coded, beside what is exact anyway.

    Unlike an encode's it makes no room for all of a low rank: that of a sum is the sum of ranks, and most of it is
    what coding left in the packs.
    """
    least = at_price(survey.options, DEAREST)
    asked = DEFAULT_SIZE.in_bytes(0, sum(spec.elements for spec in survey.specs))
    return max(asked + total_cost(least), survey.size(least, metadata))


def _used(blocks: Iterable[Block]) -> set[str]:
    """Names of the base tensors that blocks are made of."""
    return {base.name for block in blocks if (base := block.base)}
