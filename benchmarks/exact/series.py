"""Series of saves of one training run: the interface of a store, and stores of links from save to save."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import dtscodec
from benchmarks.exact.peers.xor_planes import decode_planes, encode_planes


class SeriesStore(ABC):
    """A store of saves in a folder. An object can be made anew for a folder that has saves.

    Parameters
    ----------
    folder : Path
        Folder of the store.
    base : Path
        File of save 0, which both sides have.
    """

    name: ClassVar[str]
    setting: ClassVar[str]
    package: ClassVar[str | None] = None

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder, self.base = folder, base

    def begin(self) -> None:
        """Store what is there before the first save; by default nothing."""
        return None

    @abstractmethod
    def add(self, number: int, previous: Path, save: Path) -> None:
        """Store a save; `restore` is the inverse.

        Parameters
        ----------
        number : int
            Number of the save, from 1.
        previous, save : Path
            Files of the save before it, and of the save.
        """

    @abstractmethod
    def restore(self, number: int, out: Path) -> None:
        """Write the file of a save, from the base and the store; the inverse of `add`."""

    def size(self) -> int:
        """Return the bytes of the store."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


class Links(SeriesStore):
    """A file for each save, which is coded against the save before it."""

    suffix: ClassVar[str]

    def add(self, number: int, previous: Path, save: Path) -> None:
        """See `SeriesStore`."""
        self.encode(previous, save, self._link(number))

    def restore(self, number: int, out: Path) -> None:
        """See `SeriesStore`."""
        before = self.base
        for step in range(1, number + 1):
            after = out if step == number else out.with_name(f"{out.stem}-{step}.safetensors")
            self.decode(before, self._link(step), after)
            if before != self.base:
                before.unlink()
            before = after

    @abstractmethod
    def encode(self, previous: Path, save: Path, link: Path) -> None:
        """Write the link from a save to the next; `decode` is the inverse."""

    @abstractmethod
    def decode(self, previous: Path, link: Path, out: Path) -> None:
        """Write the next save; the inverse of `encode`."""

    def _link(self, number: int) -> Path:
        return self.folder / f"{number:04}{self.suffix}"


class PlanesLinks(Links):
    """Links of `peers.xor_planes`."""

    name = "xor + planes + zstd -1"
    setting = "each save against the one before it"
    suffix = ".planes"

    def encode(self, previous: Path, save: Path, link: Path) -> None:
        """See `Links`."""
        encode_planes(previous, save, link, level=1)

    def decode(self, previous: Path, link: Path, out: Path) -> None:
        """See `Links`."""
        decode_planes(previous, link, out)


class OurSeries(SeriesStore):
    """A `dtscodec.Series`."""

    name = "dtscodec series"
    setting = "without codes; anchors on save 0; the save before is at hand"

    def add(self, number: int, previous: Path, save: Path) -> None:
        """See `SeriesStore`."""
        series = dtscodec.Series(self.folder)
        series.append(save, step=number, base=self.base, previous=previous if series.steps else None)

    def restore(self, number: int, out: Path) -> None:
        """See `SeriesStore`."""
        with dtscodec.Series(self.folder).decode(number) as state:
            state.save(out)
