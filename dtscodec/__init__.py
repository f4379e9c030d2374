"""dtscodec: one shared base checkpoint, and a small pack per fine-tune of it.

>>> import dtscodec
>>> pack = dtscodec.open("task.safetensors")  # doctest: +SKIP
>>> weights = dtscodec.decode(pack, base="base.safetensors")  # doctest: +SKIP
"""

import importlib
from typing import Any

from dtscodec.version import __version__ as __version__

_MODULES = {
    "Base": "dtscodec.checkpoints.base",
    "BaseOnly": "dtscodec.encoding.config",
    "Best": "dtscodec.encoding.config",
    "Comparison": "dtscodec.decoding.compare",
    "Decoded": "dtscodec.decoding.decoded",
    "DtsError": "dtscodec.errors",
    "EncodeConfig": "dtscodec.encoding.config",
    "EncodeReport": "dtscodec.encoding.pack_report",
    "FitReport": "dtscodec.calibration.fit",
    "Journal": "dtscodec.encoding.journal",
    "MaxError": "dtscodec.encoding.targets",
    "MaxKl": "dtscodec.promises.bounds",
    "MinAgreement": "dtscodec.promises.bounds",
    "Pack": "dtscodec.packs.pack",
    "PackReport": "dtscodec.encoding.pack_report",
    "Paper": "dtscodec.encoding.config",
    "PromisedPack": "dtscodec.promises.encode_promised",
    "Rank": "dtscodec.encoding.targets",
    "RankShare": "dtscodec.encoding.targets",
    "Series": "dtscodec.series.series",
    "Size": "dtscodec.encoding.targets",
    "Switcher": "dtscodec.runtime.switcher",
    "add_residual": "dtscodec.encoding.residual.encode_exact",
    "apply_": "dtscodec.runtime.apply",
    "attach": "dtscodec.runtime.attach",
    "collect": "dtscodec.calibration.collect",
    "collect_grams": "dtscodec.calibration.gram_collector",
    "compare": "dtscodec.decoding.compare",
    "compare_behaviour": "dtscodec.evaluation.compare_behaviour",
    "decode": "dtscodec.decoding.decode",
    "directory_info": "dtscodec.packs.pack_info",
    "encode": "dtscodec.encoding.encode",
    "encode_all": "dtscodec.encoding.encode_all",
    "encode_calibrated": "dtscodec.calibration.encode_calibrated",
    "encode_family": "dtscodec.merging.family",
    "encode_promised": "dtscodec.promises.encode_promised",
    "export_adapter": "dtscodec.adapters.exporting.export_adapter",
    "fit": "dtscodec.calibration.fit",
    "fold": "dtscodec.encoding.residual.fold",
    "from_pretrained": "dtscodec.runtime.pretrained",
    "fuse": "dtscodec.fusion.fuse",
    "import_adapter": "dtscodec.adapters.importing.import_adapter",
    "info": "dtscodec.packs.pack_info",
    "merge": "dtscodec.merging.merge",
    "open": "dtscodec.packs.pack",
    "push": "dtscodec.hub.push",
    "save_grams": "dtscodec.activations.gram_file",
    "strip": "dtscodec.encoding.residual.encode_exact",
    "verify": "dtscodec.decoding.verify",
    "write_report": "dtscodec.report.write_report",
}
"""Module that defines each public name. A new name is added here, in `__init__.pyi`, and in `tests/test_layers.py`."""

_DEFINED_AS = {"open": "Pack"}
"""Public names that their module defines under another one."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use: torch takes seconds to import, and opening a pack does not need it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'dtscodec' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), _DEFINED_AS.get(name, name))


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
