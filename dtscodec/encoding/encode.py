"""Checkpoint -> pack file: every tensor of a fine-tune against its base, one at a time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from typing_extensions import assert_never

from dtscodec.activations.gram_file import Grams
from dtscodec.checkpoints.auxiliary_files import Attachment, collect_files
from dtscodec.checkpoints.base import Base, KnownLeaf
from dtscodec.checkpoints.checkpoint import Checkpoint, Source
from dtscodec.checkpoints.name_matching import NameMatch, match_names
from dtscodec.checkpoints.open_inputs import as_base, as_checkpoint, weight_paths
from dtscodec.encoding.budget.allocate import Choices
from dtscodec.encoding.budget.candidates import NUMBERS, Choice
from dtscodec.encoding.budget.error_target import smallest_for
from dtscodec.encoding.budget.survey import Survey
from dtscodec.encoding.config import Best, EncodeConfig, Paper
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares, code_same, code_tie
from dtscodec.encoding.exact_tensors import check_patterns
from dtscodec.encoding.journal import Journal, key_of
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata, reference_to
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.targets import MaxError, Rank, RankShare, Size
from dtscodec.encoding.tensor_task import Coded, Identity, Inputs, code, look, measure
from dtscodec.encoding.tied_tensors import Ties
from dtscodec.errors import DtsError
from dtscodec.executors.processes import in_order
from dtscodec.format.summary import Summary
from dtscodec.linalg.devices import usable_device
from dtscodec.packs.pack import Pack
from dtscodec.storage.access import Access
from dtscodec.storage.paths import as_output_path
from dtscodec.storage.staging import staging_folder_for
from dtscodec.version import __version__

Progress = Callable[[int], None]
Chosen: TypeAlias = Mapping[str, Sequence[Choice]]
"""How each tensor is stored, by piece."""
RESULT = TypeVar("RESULT")

NEAR = 4
"""Tensors after the one whose result came last that are read ahead: those that workers turn to next."""


def reads(config: EncodeConfig) -> int:
    """How often an encode reads every tensor, and tells `progress` of it: `best` looks at all before it chooses."""
    return 1 if isinstance(config.preset, Paper) else 2


def encode(
    base: "Source | Base",
    fine_tune: "Source | Checkpoint",
    out: str | Path,
    config: EncodeConfig | None = None,
    *,
    task: str | None = None,
    force: bool = False,
    progress: Progress = lambda size: None,
    executor: Executor | None = None,
    journal: Journal | None = None,
) -> EncodeReport:
    """Write the pack that turns a base into a fine-tune.

    Parameters
    ----------
    base : path, mapping of tensors, or Base
        The base checkpoint. A `Base` is hashed once for several fine-tunes.
    fine_tune : path, mapping of tensors, or Checkpoint
        The fine-tune. What is given here by a remote name, such as ``s3://bucket/model``, is transferred once.
    out : path
        The pack, here or in remote storage; its directory must exist.
    config : EncodeConfig, optional
        Settings; by default the preset `best` at 0.08 bits a parameter.
    task : str, optional
        A short name, stored in the pack.
    force : bool
        Replace a file that exists.
    progress : callable
        Told the bytes of each tensor that is looked at; `reads` tells how often that is.
    executor : concurrent.futures.Executor, optional
        Whose workers decompose and code tensors, each from the same files; the pack does not depend on it.
    journal : Journal, optional
        Where what is found is kept, so that the same encode, if it is cut off, goes on where it ended.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read.
    ConfigError
        A pattern of `raw` fits no tensor.
    BaseMismatchError
        The base is of another architecture.
    EncodeError
        A tensor cannot be coded, names are ambiguous, or the size that is asked for is too small.
    BackendError
        A worker was killed, the config's device is not there, or a package for remote storage is not there.
    OutputError
        The pack cannot be written, or exists; or the journal is that of another encode.

    Examples
    --------
    >>> import tempfile, torch, dtscodec
    >>> base = {"w": torch.zeros(64, 64)}
    >>> fine = {"w": torch.outer(torch.linspace(-1, 1, 64), torch.ones(64))}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = dtscodec.encode(base, fine, f"{folder}/task.safetensors")
    ...     with dtscodec.open(report.path) as pack:
    ...         pack.keys()
    ('w',)
    """
    start = time.perf_counter()
    config = config or EncodeConfig()
    usable_device(config.device)
    out = as_output_path(out)
    numbers = "F32" if isinstance(config.preset, Paper) else NUMBERS
    with (
        staging_folder_for(out, base, fine_tune) as staging,
        as_base(base, Access(staging, whole=True)) as opened,
        as_checkpoint(fine_tune, Access(staging, whole=True)) as fine,
    ):
        check_patterns(config.raw, fine.specs)
        encoder = _Encoder(opened, fine, config, task, executor, journal)
        saved = encoder.begin()
        if saved is None or not holds_pack(out, saved["pack_id"]):
            inputs = weight_paths(out, fine, opened.checkpoint)
            with PackAssembler(out, numbers, force=force, inputs=inputs, start=start, progress=progress) as assembler:
                report = encoder.write(encoder.choose(progress), assembler)
                if journal is not None:
                    journal.done(saved_report(report))
            return report
        return EncodeReport(path=out, seconds=time.perf_counter() - start, **saved)


def saved_report(report: EncodeReport) -> dict[str, Any]:
    """Return what a journal stores of a report: all but the path, which is the caller's, and the time."""
    return {name: value for name, value in asdict(report).items() if name not in ("path", "seconds")}


def holds_pack(out: Path, pack_id: str) -> bool:
    """Whether a file is there, and the pack of that id."""
    try:
        with Pack(out.read_bytes()) as pack:
            return pack.id == pack_id
    except (DtsError, OSError):
        return False


class _Encoder:
    """One encode: goes over the tensors, once or several times, and keeps account of base leaves and ties."""

    def __init__(
        self,
        base: Base,
        fine: Checkpoint,
        config: EncodeConfig,
        task: str | None,
        executor: Executor | None,
        journal: Journal | None,
    ) -> None:
        self._base, self._fine, self._config, self._executor, self._journal = base, fine, config, executor, journal
        is_merged = base.made_by is not None
        self._match: NameMatch = match_names(fine.specs, base.specs, config.renames, fine.aliases, is_merged)
        self._inputs = Inputs(fine, base, self._match.counterpart, config)
        self._ties = Ties(fine, self._match, config)
        self._leaves: dict[str, bytes] = {}
        self._settled: dict[str, EncodedTensor] = {}
        self._files = self._collect_files()
        encoder = f"dtscodec {__version__} {config.describe()}" + (f"; base: {base.made_by}" if base.made_by else "")
        self._summary = Summary(task=task, encoder=encoder, tensors=0)

    def begin(self) -> dict[str, Any] | None:
        """Begin, or go on with what the journal holds; what there is to report if it holds all."""
        if self._journal is None:
            return None
        checkpoints = self._fine, self._base.checkpoint
        config = self._config
        if isinstance(config.preset, Best):  # The content of the Gram matrices counts, and not where they are.
            config = replace(config, preset=replace(config.preset, grams=None))
        settings = config, self._calibration(), self._summary, self._match, self._files
        return self._journal.begin(key_of(checkpoints, *settings))

    def _calibration(self) -> bytes | None:
        """Stands for the content of the file of Gram matrices, which may be collected anew under another name."""
        preset = self._config.preset
        if isinstance(preset, Paper) or preset.grams is None:
            return None
        with Grams(preset.grams) as grams:
            return grams.digest()

    def choose(self, progress: Progress) -> Chosen | None:
        """Look at all tensors and decide how each piece is stored; the preset `paper` has nothing to choose."""
        if isinstance(self._config.preset, Paper):
            return None
        survey = Survey(self._config, tuple(self._fine.specs.values()))
        for name, seen in self._each(look, lambda name: (survey.demand,)):
            settled = self._settle(name, seen.identity)
            if settled:
                survey.add_settled(settled.entry)
            elif seen.problem:
                raise seen.problem
            else:
                survey.add(name, self._fine.specs[name], seen.split, seen.options)
            progress(self._fine.specs[name].nbytes)
        return survey.by_tensor(self._choices(survey))

    def _choices(self, survey: Survey) -> Choices:
        target = self._config.target
        match target:
            case Rank() | RankShare():
                return survey.choose_any()
            case MaxError(error=error):
                return smallest_for(error, survey, lambda choices: self._error_of(survey.by_tensor(choices)))
            case Size() | None:
                metadata = self._metadata()
                return survey.choose(metadata, survey.budget(metadata))
            case _:
                assert_never(target)

    def _error_of(self, chosen: Chosen) -> float:
        """Relative error that choices lead to, by coding all tensors."""
        return sum(
            (squares for _, squares in self._each(measure, lambda name: (chosen[name],))), Squares()
        ).relative_error

    def write(self, chosen: Chosen | None, assembler: PackAssembler) -> EncodeReport:
        """Encode all tensors and write the pack."""
        coded = self._each(code, lambda name: (chosen[name] if chosen else None,))
        for name in self._fine.specs:
            assembler.add(self._settled.get(name) or self._encoded(*next(coded)))
        base, leaves = reference_to(self._base, {name: self._leaves[name] for name in assembler.used_bases})
        return assembler.finish(replace(self._metadata(), summary=replace(self._summary, base=base)), leaves)

    def _encoded(self, name: str, coded: Coded) -> EncodedTensor:
        settled = self._settle(name, coded.identity)
        if settled:
            return settled
        if coded.problem:
            raise coded.problem
        assert coded.tensor is not None
        return coded.tensor

    def _each(
        self, work: Callable[..., RESULT], more: Callable[[str], tuple[Any, ...]]
    ) -> Iterator[tuple[str, RESULT]]:
        """Results of some work on every tensor that is not settled, names ascending.

        Parameters
        ----------
        work : callable
            A function of `tensor_work`.
        more : callable
            What it is to be given for a name beside the inputs.
        """
        names = [name for name in self._fine.specs if name not in self._settled]
        done = 0
        for name, result in zip(names, self._kept(work.__name__, names), strict=False):
            yield name, result
            done += 1
        rest = names[done:]
        tasks = ((self._inputs.only(name), name, self._known_leaf(name), *more(name)) for name in rest)
        self._prefetch(rest[:NEAR])
        for at, (name, result) in enumerate(zip(rest, in_order(self._executor, work, tasks), strict=True)):
            self._prefetch(rest[at + NEAR : at + NEAR + 1])
            self._keep(work.__name__, name, result)
            yield name, result

    def _prefetch(self, names: Sequence[str]) -> None:
        """Let tensors be read while others are computed."""
        for name in names:
            self._fine.prefetch(name)
            if (counterpart := self._match.counterpart[name]) is not None:
                self._base.checkpoint.prefetch(counterpart)

    def _kept(self, step: str, names: Sequence[str]) -> Iterator[Any]:
        return iter(()) if self._journal is None else self._journal.kept(step, names)

    def _keep(self, step: str, name: str, result: object) -> None:
        if self._journal is not None:
            self._journal.keep(step, name, result)

    def _known_leaf(self, name: str) -> KnownLeaf | None:
        counterpart = self._match.counterpart[name]
        return None if counterpart is None else self._base.known_leaf(counterpart)

    def _settle(self, name: str, identity: Identity) -> EncodedTensor | None:
        """A tensor that is the base's or another one's, and needs no coding; keeps account of what was seen."""
        counterpart, spec = self._match.counterpart[name], self._fine.specs[name]
        if counterpart is not None and identity.base is not None:
            self._leaves[counterpart] = identity.base
        if counterpart is not None and identity.known is not None:
            self._base.learn_leaf(counterpart, identity.known)
        if identity.content is None and counterpart is not None:
            self._settled[name] = code_same(name, spec, counterpart)
        elif identity.content is not None and (original := self._ties.original(name, identity.content)) != name:
            self._settled[name] = code_tie(name, spec, original)
        return self._settled.get(name)

    def _metadata(self) -> PackMetadata:
        """Return everything beside the tensors. The base digest is not known yet; any is as long as the right one."""
        needs_base = any(other is not None for other in self._match.counterpart.values())
        summary = replace(self._summary, base=self._base.reference(bytes(32)) if needs_base else None)
        return PackMetadata(summary, self._match.prefix, self._match.absent, self._fine.metadata, self._files)

    def _collect_files(self) -> list[Attachment]:
        """The small files of a fine-tune that is a directory."""
        if not (self._config.files and self._fine.is_directory):
            return []
        directories = self._fine.directory, self._base.checkpoint.directory
        return list(collect_files(*directories, self._fine.weight_files))
