"""The rooms of the house: imports go only downward, and each room stays what it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dtscodec
from tests.support import ROOT

PACKAGE = ROOT / "dtscodec"

# Lowest first; a room may import itself and the rooms below it.
ROOMS = [
    *["errors", "format", "kernels", "remote", "checkpoints", "codec", "merging", "unseen", "behaviour"],
    *["runtime", "calibration", "hub", "interop", "report", "cli"],
]
NO_TORCH = ["errors", "format", "remote"]


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at any depth of it, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "dtscodec" and len(parts) > 1 and parts[1] in ROOMS else None


def files(room: str) -> list[Path]:
    single = PACKAGE / f"{room}.py"
    return [single] if single.exists() else sorted((PACKAGE / room).rglob("*.py"))


def test_every_file_belongs_to_a_room() -> None:
    known = {path for room in ROOMS for path in files(room)} | {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
    assert set(PACKAGE.rglob("*.py")) == known


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_only_downward(room: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for path in files(room):
        used = {found for module in imports(path) if (found := room_of(module))}
        assert used <= allowed, f"{path} imports {sorted(used - allowed)}"


@pytest.mark.parametrize("room", NO_TORCH)
def test_the_format_and_storage_know_no_torch(room: str) -> None:
    for path in files(room):
        assert not {module.split(".")[0] for module in imports(path)} & {"torch", "transformers"}, path


def test_the_format_does_not_know_the_hub() -> None:
    for path in files("format"):
        assert "huggingface_hub" not in {module.split(".")[0] for module in imports(path)}, path


def test_encode_and_decode_do_not_import_each_other() -> None:
    assert not any("codec.decode" in module for module in imports(PACKAGE / "codec" / "encode.py"))
    assert not any("codec.encode" in module for module in imports(PACKAGE / "codec" / "decode.py"))


def test_the_spec_imports_nothing_of_ours() -> None:
    for path in (ROOT / "spec").rglob("*.py"):
        assert not any(module.split(".")[0] == "dtscodec" for module in imports(path)), path


def test_there_are_no_import_cycles_between_modules() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    graph = {name: _targets(path, modules) for name, path in modules.items() if not name.endswith("__init__")}
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


def _targets(path: Path, modules: dict[str, Path]) -> set[str]:
    """Modules that a file imports when it is imported itself."""
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    names = set()
    for node in top:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & modules.keys()


PUBLIC = [
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


def test_the_public_surface_is_this_list_and_fits_one_screen() -> None:
    assert dtscodec.__all__ == PUBLIC
    assert all(getattr(dtscodec, name) is not None for name in PUBLIC)
    assert len(PUBLIC) <= 24


def test_opening_a_pack_does_not_import_torch() -> None:
    code = "import sys, dtscodec; dtscodec.open; dtscodec.DtsError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
