"""Auxiliary files of a pack."""

from dtscodec.checkpoints.auxiliary_files import AuxiliaryFile, Carried, Named
from dtscodec.format.index import CarriedFile
from dtscodec.packs.pack import Pack


def auxiliary_files_of(pack: Pack) -> list[AuxiliaryFile]:
    """Return the auxiliary files that travel with a pack, names ascending."""
    return [
        Carried(file.name, pack.reader.file(file)) if isinstance(file, CarriedFile) else Named(file.name, file.digest)
        for file in pack.index.files
    ]
