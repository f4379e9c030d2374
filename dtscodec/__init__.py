"""dtscodec: one shared base checkpoint, and a small pack per fine-tune of it.

>>> import dtscodec
>>> pack = dtscodec.open("task.safetensors")  # doctest: +SKIP
>>> weights = dtscodec.decode(pack, base="base.safetensors")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from dtscodec.version import __version__ as __version__

if TYPE_CHECKING:
    from dtscodec.adapters.export_adapter import export_adapter as export_adapter
    from dtscodec.adapters.import_adapter import import_adapter as import_adapter
    from dtscodec.checkpoints.identity import Base as Base
    from dtscodec.decoding.compare import Comparison as Comparison
    from dtscodec.decoding.compare import compare as compare
    from dtscodec.decoding.decode import decode as decode
    from dtscodec.decoding.decoded import Decoded as Decoded
    from dtscodec.encoding.config import EncodeConfig as EncodeConfig
    from dtscodec.encoding.encode import EncodeReport as EncodeReport
    from dtscodec.encoding.encode import encode as encode
    from dtscodec.encoding.journal import Journal as Journal
    from dtscodec.encoding.size import Size as Size
    from dtscodec.errors import DtsError as DtsError
    from dtscodec.evaluation.measure import compare_behaviour as compare_behaviour
    from dtscodec.fusion.fuse import fuse as fuse
    from dtscodec.hub.push import push as push
    from dtscodec.merging.merge import merge as merge
    from dtscodec.packs.pack import Pack as Pack
    from dtscodec.packs.pack import Pack as open
    from dtscodec.runtime.apply import apply_ as apply_
    from dtscodec.runtime.attach import attach as attach
    from dtscodec.runtime.pretrained import from_pretrained as from_pretrained
    from dtscodec.runtime.switcher import Switcher as Switcher

__all__ = [
    "Base",
    "Comparison",
    "Decoded",
    "DtsError",
    "EncodeConfig",
    "EncodeReport",
    "Journal",
    "Pack",
    "Size",
    "Switcher",
    "apply_",
    "attach",
    "compare",
    "compare_behaviour",
    "decode",
    "encode",
    "export_adapter",
    "from_pretrained",
    "fuse",
    "import_adapter",
    "merge",
    "open",
    "push",
]

_HOMES = {
    "Base": "dtscodec.checkpoints.identity",
    "Comparison": "dtscodec.decoding.compare",
    "Decoded": "dtscodec.decoding.decoded",
    "DtsError": "dtscodec.errors",
    "EncodeConfig": "dtscodec.encoding.config",
    "EncodeReport": "dtscodec.encoding.encode",
    "Journal": "dtscodec.encoding.journal",
    "Pack": "dtscodec.packs.pack",
    "Size": "dtscodec.encoding.size",
    "Switcher": "dtscodec.runtime.switcher",
    "apply_": "dtscodec.runtime.apply",
    "attach": "dtscodec.runtime.attach",
    "compare": "dtscodec.decoding.compare",
    "compare_behaviour": "dtscodec.evaluation.measure",
    "decode": "dtscodec.decoding.decode",
    "encode": "dtscodec.encoding.encode",
    "export_adapter": "dtscodec.adapters.export_adapter",
    "from_pretrained": "dtscodec.runtime.pretrained",
    "fuse": "dtscodec.fusion.fuse",
    "merge": "dtscodec.merging.merge",
    "push": "dtscodec.hub.push",
    "import_adapter": "dtscodec.adapters.import_adapter",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and opening a pack does not need it."""
    if name == "open":
        return __getattr__("Pack")
    if name not in _HOMES:
        raise AttributeError(f"module 'dtscodec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
