"""A store of moonclip: full saves, and differences from the last full save."""

import os
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.exact.safetensors_layout import header_of, map_body, spans
from benchmarks.exact.series import SeriesStore

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"}
MANY = 1_000_000


class MoonclipStore(SeriesStore):
    """The base is saved first, and not counted by `measure_series`; all saves are kept."""

    package = "moonclip"
    deltas: ClassVar[int]
    """Most saves against one full save."""

    def __init__(self, folder: Path, base: Path) -> None:
        super().__init__(folder, base)
        os.environ["MOONCLIP_THREADS"] = "1"
        from moonclip import MoonclipManager  # type: ignore[import-not-found]

        self._manager: Any = MoonclipManager(
            storage_root=str(folder),
            compression_level=9,
            max_full_snapshots=MANY,
            max_deltas_per_full=self.deltas,
            max_total_snapshots=MANY,
            full_every_steps=MANY,
            merge_stride=0,
            merge_max_chain=MANY,
            async_save=False,
        )

    def begin(self) -> None:
        """See `SeriesStore`."""
        self.add(0, self.base, self.base)

    def add(self, number: int, previous: Path, save: Path) -> None:
        """See `SeriesStore`."""
        body = map_body(save)
        tensors = {
            span.name: (list(span.shape), DTYPES[span.dtype], body[span.start : span.stop].tobytes())
            for span in spans(header_of(save))
        }
        self._manager.save_tensors(number, tensors)
        self._manager.flush()

    def restore(self, number: int, out: Path) -> None:
        """See `SeriesStore`."""
        (snapshot,) = (entry["id"] for entry in self._manager.list_snapshots() if entry["step"] == number)
        tensors = self._manager.load(snapshot)
        # The names, shapes and places of tensors do not change in a series.
        header = header_of(self.base)
        with out.open("wb") as file:
            file.write(header)
            for span in spans(header):
                file.write(tensors[span.name])


class MoonclipFirst(MoonclipStore):
    """All saves against the first."""

    name = "moonclip, one full save"
    setting = "compression level 9, all saves against the base"
    deltas = MANY


class MoonclipDefault(MoonclipStore):
    """A full save after ten others, as by default."""

    name = "moonclip"
    setting = "compression level 9, a full save after 10 differences (the default)"
    deltas = 10
