"""Delta packs of reminis: SQLite databases."""

from pathlib import Path

from benchmarks.exact.pair import Pair
from benchmarks.exact.scheme import Scheme

DATABASE, PACK = "base.db", "delta.db"


class ReminisPack(Scheme):
    """The base is in a database before the clock starts; the fine-tune is converted to one and back."""

    name = "reminis"
    setting = "diff and apply, lossless; times with the conversion of the fine-tune"
    package = "reminis"

    def prepare(self, pair: Pair, prepared: Path) -> None:
        """See `Scheme`."""
        import reminis  # type: ignore[import-not-found]

        reminis.safetensors_to_sqlite(str(pair.laid_out), str(prepared / DATABASE), verbose=False)

    def encode(self, pair: Pair, prepared: Path, packed: Path) -> None:
        """See `Scheme`."""
        import reminis

        fine = packed.parent / f"{packed.name}-fine.db"
        reminis.safetensors_to_sqlite(str(pair.fine), str(fine), verbose=False)
        reminis.diff_models(str(prepared / DATABASE), str(fine), str(packed / PACK), verbose=False)
        fine.unlink()

    def decode(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """See `Scheme`."""
        import reminis

        fine = out.with_suffix(".db")
        reminis.apply_delta(str(prepared / DATABASE), str(packed / PACK), str(fine), verbose=False)
        reminis.sqlite_to_safetensors(str(fine), str(out), verbose=False)
        fine.unlink()
