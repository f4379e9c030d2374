"""All schemes, by name."""

from benchmarks.exact.dts import OURS
from benchmarks.exact.peers.lmzip_archive import LmzipArchive
from benchmarks.exact.peers.reminis_pack import ReminisPack
from benchmarks.exact.peers.xor_planes import XorPlanes
from benchmarks.exact.peers.zipnn_delta import ZipnnDelta
from benchmarks.exact.scheme import Scheme

FAST = XorPlanes(1)
"""The measure of speed."""
PEERS: tuple[Scheme, ...] = (FAST, XorPlanes(19), ZipnnDelta(), LmzipArchive(), ReminisPack())
SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (*OURS, *PEERS)}
