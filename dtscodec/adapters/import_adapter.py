"""LoRA adapter of PEFT and its base -> pack. The adapter's factors are never multiplied out."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from dtscodec.adapters.counterparts import Counterparts, find_counterparts, is_transposed
from dtscodec.adapters.lora_file import OUR_FILES, LoraAdapter, read_adapter, weights_of
from dtscodec.adapters.peft_config import CONFIG_NAME
from dtscodec.checkpoints.auxiliary_files import AuxiliaryFile, collect_files
from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.checkpoints.open import weight_paths
from dtscodec.checkpoints.stored_tensor import StoredTensor
from dtscodec.encoding.budget.candidate import NUMBERS
from dtscodec.encoding.delta import is_same
from dtscodec.encoding.encoded_tensor import EncodedTensor, Squares, encode_exactly, encode_same
from dtscodec.encoding.pack_assembler import PackAssembler, PackMetadata, reference_to
from dtscodec.encoding.pack_report import EncodeReport
from dtscodec.encoding.presets.one_width import encode_factored
from dtscodec.errors import ConfigError, EncodeError, Remedy
from dtscodec.format.blocks import BaseRows
from dtscodec.format.index import TensorEntry
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
    task: str | None = None,
    files: bool = True,
    force: bool = False,
    progress: ProgressCallback = no_progress,
) -> ImportReport:
    """Import a LoRA adapter of PEFT as a pack; the counterpart of `export_adapter`.

    The pack's fine-tune is the model that `merge_and_unload` of PEFT returns. Where the model ties its head to an
    embedding that the adapter changes, the head changes with it.

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
    with as_base(base) as opened:
        lora = read_adapter(directory)
        # Match all names before the first tensor is encoded, so that a wrong base is reported at once.
        importer = _Importer(lora, opened, find_counterparts(lora, opened.specs, renames), bits, task)
        weights = weights_of(directory)
        inputs = [] if is_remote(directory) else [directory / CONFIG_NAME, weights]
        inputs += weight_paths(out, opened.checkpoint)
        with PackAssembler(out, NUMBERS, force=force, inputs=inputs, start=start, progress=progress) as assembler:
            for tensor in importer.tensors():
                assembler.add(tensor)
            report = assembler.finish(*importer.metadata(importer.files(directory) if files else []))
    return report.extended(
        ImportReport,
        modules=len(lora.pairs),
        exact=tuple(importer.exact),
        adapter_bytes=weights.stat().st_size,
    )


class _Importer:
    """Encoder of the fine-tune's tensors, one by one, which collects the leaves of the base tensors that they use."""

    def __init__(
        self, adapter: LoraAdapter, base: Base, counterparts: Counterparts, bits: Bits, task: str | None
    ) -> None:
        self._adapter, self._base, self._counterparts, self._bits, self._task = adapter, base, counterparts, bits, task
        self._leaves: dict[str, bytes] = {}
        self.exact: list[str] = []

    def tensors(self) -> Iterator[EncodedTensor]:
        """Yield the fine-tune's tensors, names ascending."""
        for name, counterpart in self._counterparts.bases.items():
            yield self._encode(name, counterpart)

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
        # Of two files of one name the later counts, that of the adapter.
        return [file for _, file in sorted({file.name: file for file in found}.items())]

    def metadata(self, files: Sequence[AuxiliaryFile]) -> tuple[PackMetadata, dict[str, bytes]]:
        """Return the pack's metadata, and the leaves of the base. Call it after all tensors are encoded."""
        reference, leaves = reference_to(self._base, self._leaves)
        encoder = f"dtscodec {__version__} import=peft bits={self._bits}"
        summary = Summary(tensors=0, base=reference, task=self._task, encoder=encoder)
        base = self._base.checkpoint
        metadata = PackMetadata(
            *(summary, self._counterparts.prefix),
            metadata=base.metadata,
            files=files,
            stem=base.stem,
            folders=base.folders,
        )
        return metadata, leaves

    def _encode(self, name: str, counterpart: str | None) -> EncodedTensor:
        whole, module = self._adapter.whole.get(name), name.removesuffix(".weight")
        pair = self._adapter.pairs.get(module) if name.endswith(".weight") else None
        # A whole tensor of the adapter replaces the base's, unless it is a copy of the base's that PEFT saved.
        if whole is not None and not self._is_base(whole, counterpart):
            if pair is not None:
                problem = f"{name}: expected a LoRA with the base's own weight, got one with another weight"
                raise EncodeError(problem, Remedy("name the base that the adapter was trained on"))
            return self._encode_exactly(whole)
        assert counterpart is not None
        # All other tensors are the base's, with a low-rank delta if the adapter has a pair.
        self._leaves[counterpart] = self._base.leaf(counterpart)
        spec = self._base.specs[counterpart]
        if pair is None:
            return encode_same(name, spec, counterpart)
        # The delta stays a product of factors: scale * B A, quantized to components.
        transposed = is_transposed(pair, spec.shape, self._counterparts.transposed)
        delta = pair.to_delta(self._adapter.settings.scale_of(module), transposed)
        try:
            coded = encode_factored(delta, BaseRows(counterpart, 0), self._bits)
        except EncodeError as error:
            raise EncodeError(f"{name}: {error.problem}", error.remedy) from error
        squares = Squares(coded.delta_energy, coded.error_energy)
        return EncodedTensor(TensorEntry(name, spec, (coded.block,)), [coded.streams], squares)

    def _is_base(self, whole: StoredTensor, counterpart: str | None) -> bool:
        """Return whether a whole tensor of the adapter equals the base's."""
        if counterpart is None:
            return False
        spec = self._base.specs[counterpart]
        return is_same(whole, StoredTensor(counterpart, spec, self._base.read(counterpart)))

    def _encode_exactly(self, whole: StoredTensor) -> EncodedTensor:
        self.exact.append(whole.name)
        return encode_exactly(whole)
