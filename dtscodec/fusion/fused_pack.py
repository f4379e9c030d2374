"""The fused pack: candidate encodings of the summed tensors, the choice among them, and the file."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile
from dtscodec.checkpoints.quantized.companions import is_quantized
from dtscodec.encoding.budget.allocate import LAMBDA_MAX, TensorChoices, at_multiplier, total_cost
from dtscodec.encoding.budget.candidate import Candidate
from dtscodec.encoding.budget.error_target import smallest_for
from dtscodec.encoding.budget.segment_candidates import candidates_of
from dtscodec.encoding.budget.survey import Survey
from dtscodec.encoding.config import DEFAULT_SIZE, EncodeConfig
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares, encode_segments
from dtscodec.encoding.notes import Note
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.presets.best import plan_best
from dtscodec.encoding.segments.segmented_tensor import SegmentedTensor
from dtscodec.encoding.targets import MaxError, Size
from dtscodec.format.blocks import Block, is_unchanged
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.naming import utf8
from dtscodec.format.summary import Summary
from dtscodec.fusion.heads import Head, is_head
from dtscodec.fusion.source_packs import SourcePacks
from dtscodec.fusion.summed_tensor import common_spec, exact_tensor, sum_tensor
from dtscodec.progress import ProgressCallback
from dtscodec.version import __version__


class FusionEncoder:
    """Encodes a fused pack in two passes over its tensors: `survey` and `write`.

    Parameters
    ----------
    sources : SourcePacks
        The packs that are added up.
    weights : sequence of float
        Mixing weights, one for each pack.
    head : Head or None
        Tensors that are the unseen task's own; they are stored exactly.
    config : EncodeConfig
        Its target is a size or an error.
    task : str or None
        Name of the unseen task, for the summary.
    files : bool
        Store auxiliary files: the head's, or else those of the pack with the largest weight.
    """

    def __init__(
        self,
        sources: SourcePacks,
        weights: Sequence[float],
        head: Head | None,
        config: EncodeConfig,
        task: str | None,
        files: bool,
    ) -> None:
        self._sources, self._weights, self._head, self._config = sources, weights, head, config
        self.head_names = tuple(sorted(head.names, key=utf8)) if head else ()
        self.names = sorted({name for name in sources.names if self._is_fused(name)} | {*self.head_names}, key=utf8)
        self._files: list[AuxiliaryFile] = []
        if files:
            # Files of the head, else those of the pack with the largest weight.
            heaviest = max(range(len(sources.packs)), key=lambda i: abs(self._weights[i]))
            self._files = (head.files() if head else []) or sources.packs[heaviest].auxiliary_files()
        encoder = f"dtscodec {__version__} fuse weights={','.join(f'{weight:.4g}' for weight in self._weights)}"
        self._summary = Summary(task=task, encoder=encoder, tensors=0)

    def _is_fused(self, name: str) -> bool:
        """Return whether a tensor is fused. If a head is given, head tensors that not all packs have are left out."""
        sources = self._sources
        return self._head is None or sources.is_in_all(name) or not (is_head(name) or sources.is_own(name))

    def _sum(self, name: str) -> SegmentedTensor:
        if self._head is not None and name in self._head.names:
            return exact_tensor(self._head.read(name))
        return sum_tensor(self._sources, name, self._weights, self._config)

    def survey(self, progress: ProgressCallback) -> Survey:
        """Return the candidate encodings of all segments: the first pass.

        Raises
        ------
        BaseMismatchError
            The base is needed, and is missing or not the packs' own.
        """
        survey = Survey(self._config, [self._spec(name) for name in self.names])
        for name in self.names:
            summed = self._sum(name)
            candidates = [candidates_of(segment, self._config, survey.request) for segment in summed.segments]
            survey.add(name, summed.spec, summed.split, candidates)
            progress(summed.spec.nbytes)
        # Report a missing base now, before the longer second pass.
        base, _ = self._sources.reference(
            _used(choice.block for choice in at_multiplier(survey.candidates, LAMBDA_MAX).values())
        )
        self._summary = replace(self._summary, base=base)
        return survey

    def _spec(self, name: str) -> TensorSpec:
        if self._head is not None and name in self._head.names:
            return self._head.specs[name]
        return common_spec(self._sources, name, self._weights)

    def choose_candidates(self, survey: Survey) -> TensorChoices:
        """Return the chosen encoding of each segment, by the config's target."""
        target = self._config.target
        # An error is measured by encoding; a size follows from the candidates.
        if isinstance(target, MaxError):
            choices = smallest_for(target.error, survey, lambda trial: self._error_of(survey.by_tensor(trial)))
        else:
            metadata = self._metadata()
            budget = survey.budget(metadata) if isinstance(target, Size) else _default_budget(survey, metadata)
            choices = survey.choose(metadata, budget)
        return survey.by_tensor(choices)

    def _error_of(self, chosen: TensorChoices) -> float:
        """Return the relative error of chosen encodings, by encoding all tensors."""
        return sum((self._encode(name, chosen[name]).squares for name in self.names), Squares()).relative_error

    def _encode(self, name: str, choices: Sequence[Candidate]) -> EncodedTensor:
        summed = self._sum(name)
        pairs = zip(summed.segments, choices, strict=True)
        plans = [plan_best(segment, choice, self._config) for segment, choice in pairs]
        return encode_segments(name, summed.spec, summed.split, plans)

    def write(self, chosen: TensorChoices, assembler: PackAssembler) -> EncodeReport:
        """Encode all tensors and write the pack: the second pass."""
        for name in self.names:
            assembler.add(self._encode(name, chosen[name]))
        base, leaves = self._sources.reference(assembler.used_bases)
        return assembler.finish(self._metadata().with_base(base).with_notes(self._quantized_notes()), leaves)

    def _quantized_notes(self) -> list[Note]:
        """Return the note on quantized weights, which have no weighted sum; none without such weights."""
        specs = {name: self._spec(name) for name in self.names if name not in self.head_names}
        names = tuple(name for name, spec in specs.items() if is_quantized(name, spec) and self._is_changed(name))
        if not names:
            return []
        parameters = sum(specs[name].elements for name in names)
        share = parameters / sum(spec.elements for spec in specs.values())
        weights, are = ("weight", "is") if len(names) == 1 else ("weights", "are")
        text = (
            f"{len(names):,} quantized {weights} ({100 * share:.1f} % of the parameters) {are} not summed but those "
            "of the pack with the largest weight"
        )
        return [Note(kind="exact", text=text, names=names, parameters=parameters, share=share)]

    def _is_changed(self, name: str) -> bool:
        """Return whether a tensor differs from the base's in some pack."""
        terms = self._sources.terms(name, self._weights)
        return not all(is_unchanged(block) for term in terms for block in term.entry.blocks)

    def _metadata(self) -> PackMetadata:
        """Return metadata and files of the pack; all that its index says of names is as in the first pack."""
        index = self._sources.packs[0].index
        return PackMetadata(
            self._summary, index.prefix, index.absent, index.metadata, self._files, index.stem, index.folders
        )


def _default_budget(survey: Survey, metadata: PackMetadata) -> int:
    """Return the default budget: the default size plus the bytes that no encoding can save.

    Unlike the default of `dtscodec.encode`, it does not grow for deltas of low rank: a sum has up to the sum of the
    ranks, and most of that is error that encoding left in the source packs.
    """
    # At the largest multiplier every segment takes its cheapest encoding.
    least = at_multiplier(survey.candidates, LAMBDA_MAX)
    asked = DEFAULT_SIZE.in_bytes(0, sum(spec.elements for spec in survey.specs))
    return max(asked + total_cost(least), survey.size(least, metadata))


def _used(blocks: Iterable[Block]) -> set[str]:
    """Return the names of the base tensors that blocks use."""
    return {base.name for block in blocks if (base := block.base)}
