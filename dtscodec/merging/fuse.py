"""Packs of several tasks -> the pack of one that was not trained (DTS, the variant for unseen tasks)."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from dtscodec import __version__
from dtscodec.checkpoints.attachments import Attachment, Carried
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.identity import Base
from dtscodec.codec.allocate import DEAREST, at_price, total_cost
from dtscodec.codec.best import plan_best
from dtscodec.codec.code_tensor import EncodedTensor, Squares, code_tensor
from dtscodec.codec.config import DEFAULT_SIZE, EncodeConfig
from dtscodec.codec.factored_part import FactoredPart
from dtscodec.codec.factorize import one_thread
from dtscodec.codec.inputs import weight_paths
from dtscodec.codec.least import smallest_for
from dtscodec.codec.options import NUMBERS, Choice, Options, options_of
from dtscodec.codec.pack import PackSource, as_pack
from dtscodec.codec.part import Part
from dtscodec.codec.pieces import Cut
from dtscodec.codec.size import Size
from dtscodec.codec.survey import Frame, Survey
from dtscodec.errors import ConfigError
from dtscodec.format.blocks import Block
from dtscodec.format.dtypes import TensorSpec
from dtscodec.format.index import FileEntry, NamedFile, base_of, utf8
from dtscodec.format.summary import Summary
from dtscodec.format.writer import PackWriter, carried_entry
from dtscodec.merging.heads import Head, HeadSource, is_head, pack_files
from dtscodec.merging.seen import Seen
from dtscodec.merging.summed import Summed, SumPiece, common_spec, exact, sum_tensor
from dtscodec.merging.weights import Vectors, Weights, weigh
from dtscodec.remote.place import as_output, work_folder
from dtscodec.remote.upload import new_file

Progress = Callable[[int], None]
Chosen: TypeAlias = Mapping[str, Sequence[Choice]]


@dataclass(frozen=True, slots=True)
class FuseReport:
    """What a fusion did.

    Parameters
    ----------
    path : Path
        The pack.
    pack_id : str
        64 hex digits.
    tasks : tuple of str
        The packs' tasks.
    weights : tuple of float
        What each pack's delta was multiplied by.
    similarities : tuple of float, optional
        The cosines that weights were made of.
    head : tuple of str
        Tensors that are the unseen task's own, stored exactly.
    tensors : int
        Of the fused fine-tune.
    pack_bytes : int
        Size on disk.
    relative_error : float
        Norm of the difference between the pack's delta and the weighted sum of the packs' deltas, by the norm of that
        sum. 0 if the sum is.
    left_out : float
        Share of the sum's squared norm in tensors that are left as the base has them.
    seconds : float
        Wall time.
    """

    path: Path
    pack_id: str
    tasks: tuple[str, ...]
    weights: tuple[float, ...]
    similarities: tuple[float, ...] | None
    head: tuple[str, ...]
    tensors: int
    pack_bytes: int
    relative_error: float
    left_out: float
    seconds: float


def fuse(
    packs: Sequence[PackSource],
    out: str | Path,
    *,
    weights: Sequence[float] | None = None,
    like: "HeadSource | str | None" = None,
    vectors: "Vectors | None" = None,
    minus: "HeadSource | None" = None,
    plain_sum: bool = False,
    head: "HeadSource | None" = None,
    base: "Source | Base | None" = None,
    size: Size | None = None,
    error: float | None = None,
    task: str | None = None,
    files: bool = True,
    force: bool = False,
    progress: Progress = lambda size: None,
) -> FuseReport:
    """Write the pack of a task that was not trained, as a weighted sum of packs of tasks that were.

    Its delta is the sum of theirs, each by its weight. With weights that add up to 1 and packs that lose nothing, it
    decodes to the weighted mean of the fine-tunes, whatever their base. Factors are put side by side, decomposed anew
    and coded to a size; nothing is multiplied out.

    Parameters
    ----------
    packs : sequence of paths, bytes or Packs
        Made against one base.
    out : path
        The pack, here or in remote storage; its directory must exist.
    weights : sequence of float, optional
        One for each pack, taken as they are. Else `like` tells them: the cosine of each task's vector to the unseen
        one's, as a share of all.
    like : path, mapping of tensors, Checkpoint or Pack; or str, optional
        The unseen task: a checkpoint, a pack or a file that has its head. The head becomes the pack's, exactly, and is
        compared with the packs' own. With `vectors` it may be a name among them, or a file of one vector.
    vectors : path or mapping of tensors, optional
        A vector for each of the packs' tasks by name, such as an embedding of what it is about, or one for each of its
        classes (the mean row is compared). Compared instead of heads.
    minus : path, mapping of tensors, Checkpoint or Pack, optional
        The initial head that all heads were trained from; subtracted before they are compared.
    plain_sum : bool
        Divide cosines by their plain sum, as the authors of DTS do, instead of leaving negative ones out.
    head : path, mapping of tensors, Checkpoint or Pack, optional
        Where the head is from, if not from `like`.
    base : path, mapping of tensors, or Base, optional
        The packs' base; else it is looked for where `decode` looks. It is needed, and opened, only if a pack stores
        exactly what the base has too, if packs use different tensors of it, or if a head that is compared is a delta.
    size : Size, optional
        Largest pack file; by default 0.08 bits a parameter beside what is stored exactly.
    error : float, optional
        The smallest pack whose delta has at most this relative error, in place of a size.
    task : str, optional
        A short name, stored in the pack.
    files : bool
        Whether configuration and tokenizer files travel: those of the head's directory or pack, else of the pack that
        counts most.
    force : bool
        Replace a file that exists.
    progress : callable
        Told the bytes of each tensor that is looked at: all of them twice.

    Raises
    ------
    ConfigError
        Weights cannot be told, or settings exclude each other.
    EncodeError
        The packs are of several architectures, each has a head of its own and none is given, or the size is too small.
    BaseMismatchError
        The packs have several bases, or the base is needed, and is missing or another one.
    CheckpointError, FormatError
        Something cannot be read.
    OutputError
        The pack cannot be written, or exists.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> ramp, ones = torch.linspace(-1, 1, 64), torch.ones(64)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one = dtscodec.encode(base, {"w": torch.outer(ramp, ones)}, f"{folder}/one").path
    ...     two = dtscodec.encode(base, {"w": torch.outer(ones, ramp)}, f"{folder}/two").path
    ...     report = dtscodec.fuse([one, two], f"{folder}/both", weights=[0.5, 0.5], size=dtscodec.Size.parse("2kB"))
    ...     with dtscodec.decode(report.path, base) as state:
    ...         float((state["w"] - (torch.outer(ramp, ones) + torch.outer(ones, ramp)) / 2).norm()) < 0.1
    True
    """
    start = time.perf_counter()
    if isinstance(packs, (str, bytes, os.PathLike)):
        raise ConfigError("expected a list of packs, got one")
    out = as_output(out)
    config = EncodeConfig(size=size, error=error)
    with ExitStack() as stack, one_thread():
        seen = Seen([stack.enter_context(as_pack(pack, True)) for pack in packs], base, stack)
        weighed = weigh(seen, stack, weights=weights, like=like, vectors=vectors, minus=minus, plain_sum=plain_sum)
        donor = Head(head, seen, stack) if head is not None else weighed.head
        fusion = _Fusion(seen, weighed, donor, config, task, files)
        survey = fusion.look(progress)
        inputs = [pack.path for pack in seen.packs if pack.path] + _paths(out, head, like, base)
        with new_file(out, force, inputs) as file, PackWriter(NUMBERS, work_folder(out)) as writer:
            pack_id, total = fusion.write(fusion.choose(survey), file, writer, progress)
        return FuseReport(
            out,
            pack_id.hex(),
            weighed.tasks,
            weighed.weights,
            weighed.similarities,
            fusion.own,
            len(fusion.names),
            out.stat().st_size,
            total.relative_error,
            total.left_out_share,
            time.perf_counter() - start,
        )


def _paths(out: Path, *sources: object) -> list[Path]:
    """Files that must not be replaced since they are read."""
    plain = [Path(source) for source in sources if isinstance(source, (str, os.PathLike)) and "://" not in str(source)]
    opened = [source.checkpoint for source in sources if isinstance(source, Base)]
    return [*plain, *weight_paths(out, *opened)]


class _Fusion:
    """Goes over the tensors, twice: what each may become, and what it becomes."""

    def __init__(
        self, seen: Seen, weighed: Weights, head: Head | None, config: EncodeConfig, task: str | None, files: bool
    ) -> None:
        self._seen, self._weights, self._head, self._config = seen, weighed.weights, head, config
        self.own = tuple(sorted(head.names, key=utf8)) if head else ()
        self.names = sorted({name for name in seen.names if self._is_kept(name)} | {*self.own}, key=utf8)
        self._files: list[Attachment] = []
        if files:
            heaviest = max(range(len(seen.packs)), key=lambda i: abs(self._weights[i]))
            self._files = (head.files() if head else []) or pack_files(seen.packs[heaviest])
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
        config = self._config
        if config.error is not None:
            choices = smallest_for(config.error, survey, lambda trial: self._error_of(survey.by_tensor(trial)))
        else:
            frame = self._frame()
            budget = survey.budget(frame) if config.size else _default_budget(survey, frame)
            choices = survey.choose(frame, budget)
        return survey.by_tensor(choices)

    def _error_of(self, chosen: Chosen) -> float:
        return sum((self._coded(name, chosen[name]).squares for name in self.names), Squares()).relative_error

    def _coded(self, name: str, choices: Sequence[Choice]) -> EncodedTensor:
        summed = self._summed(name)
        parts = [
            _part(summed, piece, choice, self._config) for piece, choice in zip(summed.pieces, choices, strict=True)
        ]
        return code_tensor(name, summed.spec, summed.split, parts)

    def write(self, chosen: Chosen, file: BinaryIO, writer: PackWriter, progress: Progress) -> tuple[bytes, Squares]:
        """Code all tensors and write the pack; its id, and what coding lost."""
        total, used = Squares(), set[str]()
        for name in self.names:
            coded = self._coded(name, chosen[name])
            writer.add(coded.entry, coded.streams)
            total += coded.squares
            used |= _used(coded.entry.blocks)
            progress(coded.entry.spec.nbytes)
        for attached in self._files:
            if isinstance(attached, Carried):
                writer.carry_file(attached.name, attached.data)
            else:
                writer.name_file(attached.name, attached.digest)
        base, leaves = self._seen.reference(used)
        frame = self._frame()
        summary = replace(self._summary, base=base)
        pack_id = writer.write(file, summary, leaves, prefix=frame.prefix, absent=frame.absent, metadata=frame.metadata)
        return pack_id, total

    def _frame(self) -> Frame:
        """What the size of the pack depends on beside the choices: as the first pack has it."""
        index = self._seen.packs[0].index
        return Frame(self._summary, index.prefix, index.absent, index.metadata, [_entry(file) for file in self._files])


def _options(piece: SumPiece, config: EncodeConfig, survey: Survey) -> Options:
    return piece.options(config) if isinstance(piece, FactoredPart) else options_of(piece, config, survey.demand)


def _part(summed: Summed, piece: SumPiece, choice: Choice, config: EncodeConfig) -> Part:
    if isinstance(piece, FactoredPart):
        return piece.plan(choice.block, config.effective_recipe)
    return plan_best(Cut(summed.name, summed.spec, [piece], summed.split), [choice], config)[0]


def _default_budget(survey: Survey, frame: Frame) -> int:
    """The default size for all that is coded, beside what is exact anyway.

    Unlike an encode's it makes no room for all of a low rank: that of a sum is the sum of ranks, and most of it is
    what coding left in the packs.
    """
    least = at_price(survey.options, DEAREST)
    asked = DEFAULT_SIZE.in_bytes(0, sum(spec.elements for spec in survey.specs))
    return max(asked + total_cost(least), survey.size(least, frame))


def _used(blocks: Iterable[Block]) -> set[str]:
    """Names of the base tensors that blocks are made of."""
    return {base.name for block in blocks if (base := base_of(block))}


def _entry(file: Attachment) -> FileEntry:
    return carried_entry(file.name, file.data) if isinstance(file, Carried) else NamedFile(file.name, file.digest)
