"""dtscodec: one shared base checkpoint, and a small pack per fine-tune of it.

>>> import dtscodec
>>> pack = dtscodec.open("task.safetensors")  # doctest: +SKIP
>>> weights = dtscodec.decode(pack, base="base.safetensors")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtscodec.behaviour.measure import compare_behaviour as compare_behaviour
    from dtscodec.checkpoints.identity import Base as Base
    from dtscodec.codec.compare import Comparison as Comparison
    from dtscodec.codec.compare import compare as compare
    from dtscodec.codec.config import EncodeConfig as EncodeConfig
    from dtscodec.codec.decode import decode as decode
    from dtscodec.codec.decoded import Decoded as Decoded
    from dtscodec.codec.encode import EncodeReport as EncodeReport
    from dtscodec.codec.encode import encode as encode
    from dtscodec.codec.journal import Journal as Journal
    from dtscodec.codec.pack import Pack as Pack
    from dtscodec.codec.pack import Pack as open
    from dtscodec.codec.size import Size as Size
    from dtscodec.errors import DtsError as DtsError
    from dtscodec.hub.push import push as push
    from dtscodec.interop.from_adapter import import_adapter as import_adapter
    from dtscodec.interop.to_adapter import export_adapter as export_adapter
    from dtscodec.merging.merge import merge as merge
    from dtscodec.runtime.apply import apply_ as apply_
    from dtscodec.runtime.attach import attach as attach
    from dtscodec.runtime.pretrained import from_pretrained as from_pretrained
    from dtscodec.runtime.switcher import Switcher as Switcher
    from dtscodec.unseen.fuse import fuse as fuse

__version__ = "0.1.0"

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
    "Comparison": "dtscodec.codec.compare",
    "Decoded": "dtscodec.codec.decoded",
    "DtsError": "dtscodec.errors",
    "EncodeConfig": "dtscodec.codec.config",
    "EncodeReport": "dtscodec.codec.encode",
    "Journal": "dtscodec.codec.journal",
    "Pack": "dtscodec.codec.pack",
    "Size": "dtscodec.codec.size",
    "Switcher": "dtscodec.runtime.switcher",
    "apply_": "dtscodec.runtime.apply",
    "attach": "dtscodec.runtime.attach",
    "compare": "dtscodec.codec.compare",
    "compare_behaviour": "dtscodec.behaviour.measure",
    "decode": "dtscodec.codec.decode",
    "encode": "dtscodec.codec.encode",
    "export_adapter": "dtscodec.interop.to_adapter",
    "from_pretrained": "dtscodec.runtime.pretrained",
    "fuse": "dtscodec.unseen.fuse",
    "merge": "dtscodec.merging.merge",
    "push": "dtscodec.hub.push",
    "import_adapter": "dtscodec.interop.from_adapter",
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
