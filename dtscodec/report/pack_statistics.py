"""Pack -> its statistics. Torch is imported only if a fine-tune is given."""

import os
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dtscodec.checkpoints.base import Base, as_base
from dtscodec.checkpoints.checkpoint import Source
from dtscodec.errors import CheckpointError
from dtscodec.format.blocks import Raw
from dtscodec.format.blocks.coded import Floats
from dtscodec.format.dtypes import CODED_DTYPES
from dtscodec.format.index import ChangedFile, NamedFile, TensorEntry
from dtscodec.format.naming import base_name
from dtscodec.packs.byte_counts import (
    TensorSize,
    bitmap_bytes,
    file_bytes,
    kind_totals,
    overhead,
    residual_bytes,
    tensor_sizes,
)
from dtscodec.packs.directory import find_base
from dtscodec.packs.directory_index import INDEX_NAME, read_directory_index
from dtscodec.packs.pack import Pack, PackSource, as_pack
from dtscodec.progress import ProgressCallback, no_progress
from dtscodec.report.module_grid import ModulePath, module_paths
from dtscodec.report.statistics import (
    PARTS,
    DirectoryStatistics,
    FileStatistics,
    KindStatistics,
    PackCloseness,
    PackStatistics,
    TensorStatistics,
    finite,
)

if TYPE_CHECKING:
    from dtscodec.decoding.compare import Comparison, TensorComparison

_LARGEST = float(np.finfo(np.float32).max)


def pack_statistics(
    source: PackSource,
    fine_tune: "Source | None" = None,
    base: "Source | Base | None" = None,
    *,
    progress: ProgressCallback = no_progress,
) -> PackStatistics:
    """Return the statistics of a pack.

    Parameters
    ----------
    source : path, bytes or Pack
        The pack.
    fine_tune : path or mapping of tensors, optional
        The fine-tune, to measure errors.
    base : path, mapping of tensors, or Base, optional
        The base, which shows which of the exact tensors are new. It is needed with `fine_tune`, unless the index of the
        pack's directory names it.
    progress : callable
        Called with the bytes of each tensor that is compared.

    Raises
    ------
    FormatError
        The pack is damaged.
    CheckpointError, BaseMismatchError
        As for `dtscodec.compare`.
    """
    with as_pack(source) as pack:
        # Only a comparison needs the base; otherwise it is not searched for.
        if fine_tune is not None and base is None:
            base = find_base(pack)
        comparison = None
        if fine_tune is not None:
            from dtscodec.decoding.compare import compare

            comparison = compare(pack, fine_tune, base, progress=progress)
        return _statistics_of(pack, comparison, _names(pack, base))


def directory_statistics(directory: Path) -> DirectoryStatistics:
    """Return the statistics of all packs of a directory.

    Parameters
    ----------
    directory : Path
        A local directory with an index of packs.

    Raises
    ------
    CheckpointError
        It has no index of packs.
    """
    folder = read_directory_index(directory)
    if folder is None:
        raise CheckpointError(f"{directory}: expected a pack, or a directory with {INDEX_NAME}, got neither")
    packs = {task: pack_statistics(directory / listed.file) for task, listed in sorted(folder.packs.items())}
    return DirectoryStatistics(Path(os.path.abspath(directory)).name, packs)


def _names(pack: Pack, base: "Source | Base | None") -> frozenset[str] | None:
    if base is None:
        return None
    with as_base(base, dequantize=pack.summary.dequantized_base) as opened:
        return frozenset(opened.specs)


def _statistics_of(pack: Pack, comparison: "Comparison | None", base_names: Container[str] | None) -> PackStatistics:
    sizes = tensor_sizes(pack)
    paths = module_paths(pack.keys())
    compared = {item.size.name: item for item in comparison.tensors} if comparison else {}
    specs = [entry.spec for entry in pack.index.tensors]
    return PackStatistics(
        name=pack.path.name if pack.path else "pack",
        id=pack.id,
        task=pack.summary.task,
        encoder=pack.summary.encoder,
        base=pack.summary.base,
        claim=pack.summary.claim,
        size=pack.size,
        parameters=sum(spec.elements for spec in specs),
        fine_tune_size=sum(spec.nbytes for spec in specs),
        kinds=_kinds(pack, sizes),
        files=_files(pack),
        absent=pack.index.absent,
        tensors=tuple(_tensor(pack, size, paths[size.name], base_names, compared.get(size.name)) for size in sizes),
        closeness=_closeness(comparison),
    )


def _closeness(comparison: "Comparison | None") -> PackCloseness | None:
    if comparison is None:
        return None
    total = comparison.total
    return PackCloseness(finite(total.relative_error), finite(total.cosine), finite(total.norm_ratio))


def _kinds(pack: Pack, sizes: list[TensorSize]) -> tuple[KindStatistics, ...]:
    kinds = [KindStatistics(kind, *totals) for kind, totals in kind_totals(sizes).items()]
    kinds.append(KindStatistics("files", len(pack.index.files), None, file_bytes(pack.index.files)))
    kinds.append(KindStatistics("bitmaps", None, None, bitmap_bytes(pack)))
    kinds.append(KindStatistics("overhead", None, None, overhead(pack, sizes)))
    if residual := residual_bytes(pack):
        kinds.append(KindStatistics("residual", None, None, residual))
    return tuple(kinds)


def _files(pack: Pack) -> tuple[FileStatistics, ...]:
    return tuple(
        FileStatistics(file.name)
        if isinstance(file, NamedFile)
        else FileStatistics(file.name, file.size, file.stored, is_changed=isinstance(file, ChangedFile))
        for file in pack.index.files
    )


def _tensor(
    pack: Pack,
    size: TensorSize,
    path: ModulePath,
    base_names: Container[str] | None,
    compared: "TensorComparison | None",
) -> TensorStatistics:
    closeness = compared.closeness if compared else None
    return TensorStatistics(
        name=size.name,
        dtype=size.spec.dtype,
        shape=size.spec.shape,
        kind=size.kind,
        depth=path.depth,
        module=path.module,
        elements=size.spec.elements,
        size=size.size,
        ranks=size.ranks,
        parts=_parts(pack, size.name),
        spectra=_spectra(pack, size),
        reason=reason(pack, pack.reader.entry(size.name), base_names),
        exact=compared.exact if compared else None,
        delta_square=finite(closeness.delta_square) if closeness else None,
        error_square=finite(closeness.error_square) if closeness else None,
    )


def _parts(pack: Pack, name: str) -> dict[str, int]:
    """Return the bytes of a tensor by `PARTS`."""
    parts = dict.fromkeys(PARTS, 0)
    entry = pack.reader.entry(name)
    for block, place in zip(entry.blocks, pack.reader.block_spans(name), strict=True):
        # Spans of numbers are counted in numbers, all others in bytes.
        parts["numbers"] += (place.numbers[1] - place.numbers[0]) * pack.reader.number_bytes
        parts["exact"] += place.raw[1] - place.raw[0]
        if block.is_coded:
            for bits, (begin, end) in zip(block.widths, place.bands, strict=True):
                parts[str(bits)] += end - begin
    return {part: count for part, count in parts.items() if count}


def _spectra(pack: Pack, size: TensorSize) -> tuple[tuple[float, ...], ...]:
    if not size.ranks:
        return ()
    spectra = []
    for _, coded in pack.factors(size.name):
        if coded.right is not None:
            spectra.append(component_norms(coded.left, coded.right))
    return tuple(spectra)


def component_norms(left: Floats, right: Floats) -> tuple[float, ...]:
    """Return the norms of the components of a matrix, descending, to four digits.

    Norms that are NaN or too large, as a hostile pack may have them, become the largest float32.

    Parameters
    ----------
    left : float [m, rank]
        Left vectors, one per column.
    right : float [rank, n]
        Right vectors, one per row.
    """
    norms = np.linalg.norm(left.astype(np.float64), axis=0) * np.linalg.norm(right.astype(np.float64), axis=1)
    norms = np.nan_to_num(norms, nan=_LARGEST, posinf=_LARGEST).clip(max=_LARGEST)
    return tuple(sorted((float(f"{norm:.4g}") for norm in norms), reverse=True))


def reason(pack: Pack, entry: TensorEntry, base_names: Container[str] | None) -> str | None:
    """Return why a tensor, or some of its rows, is stored exactly or coded without a base; None if it is a delta.

    Parameters
    ----------
    pack : Pack
        The pack.
    entry : TensorEntry
        One of its tensors.
    base_names : container of str, optional
        Names of the base's tensors. Without them it is not known which exact tensors are new.
    """
    if any(block.is_coded and block.base is None for block in entry.blocks):
        return "new: not in the base, so coded by itself"
    raw = [block for block in entry.blocks if isinstance(block, Raw)]
    if not raw:
        return None
    some = "" if len(raw) == len(entry.blocks) else "some rows "
    if entry.spec.dtype not in CODED_DTYPES:
        return f"{some}exact: {entry.spec.dtype} is never coded"
    if not entry.spec.shape:
        return f"{some}exact: a single number"
    if base_names is None:
        return f"{some}exact: new, tiny, the best use of its bytes, or on request"
    if base_name(entry.name, pack.index.prefix) not in base_names:
        return f"{some}exact: new, not in the base"
    return f"{some}exact: tiny, the best use of its bytes, or on request"
