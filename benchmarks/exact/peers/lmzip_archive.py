"""An archive of lmzip that has the base, and to which the fine-tune is appended."""

import shutil
from pathlib import Path

from benchmarks.exact.pair import Pair
from benchmarks.exact.scheme import Scheme

ARCHIVE = "archive.lmz"


class LmzipArchive(Scheme):
    """The fine-tune takes what the archive grows by."""

    name = "lmzip"
    setting = "append to an archive of the base, less the base's archive; level 9; one worker"
    package = "lmzip"

    def prepare(self, pair: Pair, prepared: Path) -> None:
        """See `Scheme`."""
        import lmz  # type: ignore[import-not-found]

        lmz.compress(str(pair.laid_out), str(prepared / ARCHIVE), level=9, workers=1)

    def encode(self, pair: Pair, prepared: Path, packed: Path) -> None:
        """See `Scheme`."""
        import lmz

        shutil.copyfile(prepared / ARCHIVE, packed / ARCHIVE)
        lmz.append(str(packed / ARCHIVE), str(pair.fine), level=9, workers=1)

    def decode(self, pair: Pair, prepared: Path, packed: Path, out: Path) -> None:
        """See `Scheme`."""
        import lmz

        lmz.extract(str(packed / ARCHIVE), pair.fine.name, str(out), workers=1)

    def size(self, prepared: Path, packed: Path) -> int:
        """See `Scheme`."""
        return (packed / ARCHIVE).stat().st_size - (prepared / ARCHIVE).stat().st_size
