"""LoRA adapter of PEFT and its base -> pack. The adapter's factors are never multiplied out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from dtscodec.adapters.importing.encode_change import encode_change
from dtscodec.adapters.importing.import_notes import import_notes
from dtscodec.adapters.importing.import_plan import ImportPlan, plan_import
from dtscodec.adapters.importing.model_config import ModelConfig
from dtscodec.adapters.importing.tied_changes import PlannedTensor
from dtscodec.adapters.importing.tokenizer_size import largest_added_token
from dtscodec.adapters.importing.weight_change import WeightChange
from dtscodec.adapters.lora_adapter import read_adapter, weights_of
from dtscodec.adapters.lora_file import OUR_FILES
from dtscodec.adapters.model_layers import CONFIG
from dtscodec.checkpoints.auxiliary_file import AuxiliaryFile, Carried
from dtscodec.checkpoints.auxiliary_files import collect_files
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.directories.file_names import ADAPTER_CONFIG
from dtscodec.checkpoints.open import weight_paths
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.budget.candidate import NUMBERS
from dtscodec.encoding.encoded_tensor import EncodedTensor, encode_same, encode_tie
from dtscodec.encoding.notes import Note
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata, reference_to
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.passed_over_note import passed_over_notes
from dtscodec.encoding.quantized_inputs import check_plain_base, dequantized_notes
from dtscodec.errors import ConfigError
from dtscodec.format.blocks import Raw, is_unchanged
from dtscodec.format.summary import Summary
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.quantize.widths import ALL_BITS, Bits
from dtscodec.storage.paths import as_output_path, as_path, is_remote
from dtscodec.storage.storage_errors import read_errors
from dtscodec.version import __version__

BITS: Bits = 16
"""Default width of singular vectors: half precision, as adapters have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport(EncodeReport):
    """An adapter that was imported as a pack, with the fields of `EncodeReport` and three more.

    The relative error is over all weights with a low-rank delta.

    Parameters
    ----------
    modules : int
        Number of weights with a low-rank delta.
    exact : tuple of str
        Tensors that replace those of the base or are new (`modules_to_save`, biases), stored exactly.
    adapter_bytes : int
        Size on disk of the adapter's weights.
    """

    modules: int
    exact: tuple[str, ...]
    adapter_bytes: int


def import_adapter(
    adapter: str | Path,
    base: "Source | Base",
    out: str | Path,
    *,
    bits: Bits = BITS,
    renames: Sequence[tuple[str, str]] = (),
    dequantize_base: bool = False,
    task: str | None = None,
    files: bool = True,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> ImportReport:
    """Import a LoRA adapter of PEFT as a pack; the counterpart of `export_adapter`.

    The pack's fine-tune is the model that PEFT trained and runs. If the base ties its head to its embedding and the
    adapter changes only one of them, they are no longer tied in the fine-tune, nor in the pack's configuration. If the
    adapter adds tokens, the configuration has the grown vocabulary.

    Parameters
    ----------
    adapter : path
        The adapter's directory, local or on the Hub.
    base : path, mapping of tensors, or Base
        The base that the adapter was trained on.
    out : path
        The pack to write, local or remote. Its directory must exist.
    bits : {2, 4, 8, 16}
        Width of the elements of singular vectors.
    renames : sequence of (str, str)
        Tensors that the base has under another name, such as a tied head: name in the fine-tune, name in the base, as
        in ``("lm_head.weight", "model.embed_tokens.weight")``.
    dequantize_base : bool
        Whether the weights of a quantized base are read dequantized, as for `EncodeConfig`.
    task : str, optional
        Name of the task, stored in the pack.
    files : bool
        Store auxiliary files: the base's configuration and the adapter's tokenizer. Base and adapter must be
        directories.
    force : bool
        Replace a file that exists.
    progress : callable
        Called with the bytes of each tensor that is encoded.

    Returns
    -------
    ImportReport
        Sizes and errors of the pack.

    Raises
    ------
    CheckpointError
        Adapter or base cannot be read, or the adapter is no plain LoRA.
    ConfigError
        There is no such width.
    EncodeError
        The adapter does not match the base, or cannot be encoded.
    OutputError
        The pack exists or cannot be written.
    """
    start = time.perf_counter()
    if bits not in ALL_BITS:
        raise ConfigError(f"expected {', '.join(map(str, ALL_BITS))} bits, got {bits}")
    out = as_output_path(out)
    with read_errors(cast(Path, adapter)):
        directory = as_path(adapter)
    with as_base(base, dequantize=dequantize_base) as opened:
        lora = read_adapter(directory)
        check_plain_base(opened)
        # Match all names before the first tensor is encoded, so that a wrong base is reported at once.
        base_directory = opened.checkpoint.directory
        config = None if base_directory is None else ModelConfig.read(base_directory)
        plan = plan_import(lora, opened.specs, config, renames, is_dequantized=opened.dequantized is not None)
        importer = _Importer(plan, opened, bits, task)
        weights = weights_of(directory)
        inputs = [] if is_remote(directory) else [directory / ADAPTER_CONFIG, weights]
        inputs += weight_paths(out, opened.checkpoint)
        with PackAssembler(out, NUMBERS, force=force, inputs=inputs, start=start, progress=progress) as assembler:
            for tensor in importer.tensors():
                assembler.add(tensor)
            collected = importer.files(directory) if files else []
            has_config = any(file.name == CONFIG for file in collected)
            notes = import_notes(plan, has_config, _added_token(directory, base_directory))
            if not importer.is_changed:
                notes.append(Note(kind="unchanged", text="no tensor differs from the base"))
            notes += passed_over_notes({"base": opened.checkpoint})
            notes += dequantized_notes(opened, opened.specs, lambda name: (name,))
            report = assembler.finish(*importer.metadata(collected, notes))
    return report.extended(
        ImportReport,
        modules=len(lora.pairs),
        exact=tuple(importer.exact),
        adapter_bytes=weights.stat().st_size,
    )


def _added_token(directory: Path, base_directory: Path | None) -> int:
    """Return the largest number of a token that an adapter's tokenizer adds to the base's; -1 if it adds none."""
    found = largest_added_token(directory)
    return found if base_directory is not None and found > largest_added_token(base_directory) else -1


class _Importer:
    """Encoder of the fine-tune's tensors, one by one, which collects the leaves of the base tensors that they use."""

    def __init__(self, plan: ImportPlan, base: Base, bits: Bits, task: str | None) -> None:
        self._plan, self._base, self._bits, self._task = plan, base, bits, task
        self._leaves: dict[str, bytes] = {}
        self.exact: list[str] = []
        self.is_changed = False

    def tensors(self) -> Iterator[EncodedTensor]:
        """Yield the fine-tune's tensors, names ascending."""
        for name, planned in self._plan.tensors.items():
            yield self._encode(name, planned)

    def files(self, directory: Path) -> list[AuxiliaryFile]:
        """Return the base's auxiliary files; those in the adapter's directory, such as a tokenizer, take precedence."""
        checkpoint = self._base.checkpoint
        if not checkpoint.is_directory:
            return []
        base_files = checkpoint.directory
        found = [
            *collect_files(base_files, base_files, checkpoint.weight_files),
            *collect_files(directory, base_files, OUR_FILES),
        ]
        # Of two files of one name the later counts, that of the adapter; the configuration is the fine-tune's.
        by_name = {file.name: file for file in found}
        if self._plan.config is not None and self._plan.has_own_config:
            by_name[CONFIG] = Carried(CONFIG, self._plan.config.to_bytes())
        return [file for _, file in sorted(by_name.items())]

    def metadata(self, files: Sequence[AuxiliaryFile], notes: Sequence[Note]) -> tuple[PackMetadata, dict[str, bytes]]:
        """Return the pack's metadata, and the leaves of the base. Call it after all tensors are encoded."""
        reference, leaves = reference_to(self._base, self._leaves)
        encoder = f"dtscodec {__version__} import=peft bits={self._bits}"
        summary = Summary(tensors=0, base=reference, task=self._task, encoder=encoder)
        base, plan = self._base.checkpoint, self._plan
        metadata = PackMetadata(
            *(summary, plan.prefix, plan.absent),
            metadata=base.metadata,
            files=files,
            stem=base.stem,
            folders=base.folders,
            notes=notes,
        )
        return metadata, leaves

    def _encode(self, name: str, planned: PlannedTensor) -> EncodedTensor:
        if planned.tied_to is not None:
            spec = self._plan.tensors[planned.tied_to].spec(self._base.specs)
            return encode_tie(name, spec, planned.tied_to)
        if planned.change is None:
            assert planned.base is not None
            tensor = encode_same(name, self._base.specs[planned.base], planned.base)
        else:
            base = self._read(planned.base, planned.change)
            tensor = encode_change(name, planned.change, base, self._bits, self._plan.transposed)
        for block in tensor.entry.blocks:
            self.is_changed |= not is_unchanged(block)
            if isinstance(block, Raw) and name not in self.exact:
                self.exact.append(name)
            if block.base is not None:
                self._leaves.setdefault(block.base.name, self._base.leaf(block.base.name))
        return tensor

    def _read(self, name: str | None, change: WeightChange) -> StoredTensor | None:
        """Return a tensor's counterpart, without elements for a change that does not depend on them."""
        if name is None:
            return None
        data = np.empty(0, np.uint8) if change.is_sum else self._base.read_with_leaf(name)[0]
        return StoredTensor(name, self._base.specs[name], data)
