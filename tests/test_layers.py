"""The rooms of the house: imports go only downward, and each room stays what it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dtscodec
from tests.support import ROOT

PACKAGE = ROOT / "dtscodec"

STORED = {"errors", "messages", "progress", "files", "quantize", "format", "storage", "checkpoints"}
"""The rooms that nearly every room above them uses, from errors to checkpoints."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "messages": set(),
    "version": set(),
    "progress": set(),
    "files": {"errors"},
    "quantize": {"errors"},
    "format": {"errors", "files", "quantize"},
    "storage": {"errors", "messages", "version", "files"},
    "executors": {"errors", "messages", "version"},
    "kernels": {"errors", "format", "quantize"},
    "linalg": {"errors", "format"},
    "checkpoints": {"errors", "messages", "progress", "files", "format", "storage"},
    "activations": STORED,
    "packs": STORED | {"version"},
    "decoding": STORED | {"kernels", "linalg", "packs"},
    "encoding": STORED | {"version", "executors", "linalg", "packs"},
    "evaluation": STORED | {"packs", "decoding"},
    "runtime": STORED | {"kernels", "activations", "packs", "decoding", "evaluation"},
    "merging": STORED | {"version", "linalg", "activations", "packs", "encoding"},
    "fusion": STORED | {"version", "linalg", "packs", "decoding", "encoding"},
    "adapters": STORED | {"version", "linalg", "packs", "decoding", "encoding", "evaluation"},
    "calibration": STORED
    | {"kernels", "linalg", "activations", "packs", "decoding", "encoding", "evaluation", "runtime"},
    "promises": STORED | {"packs", "decoding", "encoding", "evaluation", "calibration"},
    "series": STORED | {"packs", "decoding", "encoding", "runtime"},
    "hub": STORED | {"packs"},
    "report": STORED | {"version", "packs", "decoding"},
    "cli": STORED
    | {"version", "executors", "activations", "packs", "decoding", "encoding", "evaluation", "runtime"}
    | {"merging", "fusion", "adapters", "calibration", "promises", "series", "hub", "report"},
}
"""The rooms, and what each may import beside itself. Rooms that are not named in each other's line are independent."""

ROOMS = list(MAY_IMPORT)
NO_TORCH = ["errors", "messages", "version", "progress", "files", "format", "storage", "executors"]


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere: at its top, in functions, and under TYPE_CHECKING; dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
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
def test_a_room_imports_only_the_rooms_that_it_may(room: str) -> None:
    for path in files(room):
        used = {found for module in imports(path) if (found := room_of(module))}
        assert used <= MAY_IMPORT[room] | {room}, f"{path} imports {sorted(used - MAY_IMPORT[room] - {room})}"


def test_what_rooms_may_import_has_no_cycle() -> None:
    for place, room in enumerate(ROOMS):
        assert MAY_IMPORT[room] <= set(ROOMS[:place]), f"{room} may import a room that is listed after it"


def test_no_module_imports_the_package_itself() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE and path.parent.name != "cli":
            assert "dtscodec" not in imports(path), f"{path} imports from the package's top"


@pytest.mark.parametrize("room", NO_TORCH)
def test_the_format_and_storage_know_no_torch(room: str) -> None:
    allowed = {"dtscodec/executors/versions.py"}  # Reports the version of torch that a worker computes with.
    for path in files(room):
        if path.relative_to(ROOT).as_posix() not in allowed:
            assert not {module.split(".")[0] for module in imports(path)} & {"torch", "transformers"}, path


def test_the_format_does_not_know_the_hub() -> None:
    for path in files("format"):
        assert "huggingface_hub" not in {module.split(".")[0] for module in imports(path)}, path


def test_encoding_and_decoding_do_not_import_each_other() -> None:
    assert "encoding" not in MAY_IMPORT["decoding"]
    assert "decoding" not in MAY_IMPORT["encoding"]


def test_decoding_runs_without_any_module_of_the_encoder() -> None:
    code = "import sys, dtscodec; dtscodec.decode; dtscodec.Decoded; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not [module for module in loaded if room_of(module) in ("encoding", "activations", "executors")]


def test_the_spec_imports_nothing_of_ours() -> None:
    for path in (ROOT / "spec").rglob("*.py"):
        assert not any(module.split(".")[0] == "dtscodec" for module in imports(path)), path


def test_there_are_no_import_cycles_between_modules() -> None:
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    graph = {name: imports(path) & modules.keys() for name, path in modules.items() if not name.endswith("__init__")}
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        assert leaves, f"a cycle among {sorted(graph)}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


PUBLIC = [
    "Base",
    "BaseOnly",
    "Best",
    "Comparison",
    "Decoded",
    "DtsError",
    "EncodeConfig",
    "EncodeReport",
    "FitReport",
    "Journal",
    "MaxError",
    "MaxKl",
    "MinAgreement",
    "Pack",
    "PackReport",
    "Paper",
    "PromisedPack",
    "Rank",
    "RankShare",
    "Series",
    "Size",
    "Switcher",
    "add_residual",
    "apply_",
    "attach",
    "collect",
    "collect_grams",
    "compare",
    "compare_behaviour",
    "decode",
    "directory_info",
    "encode",
    "encode_all",
    "encode_calibrated",
    "encode_family",
    "encode_promised",
    "export_adapter",
    "fit",
    "fold",
    "from_pretrained",
    "fuse",
    "import_adapter",
    "info",
    "merge",
    "open",
    "push",
    "save_grams",
    "strip",
    "verify",
    "write_report",
]


def test_the_public_surface_is_this_list_and_fits_one_screen() -> None:
    """Every command has a public call, and its values are public: some 45 names, which `dir` shows on one screen."""
    assert vars(dtscodec)["__all__"] == PUBLIC
    assert all(getattr(dtscodec, name) is not None for name in PUBLIC)
    assert len(PUBLIC) <= 52


def test_the_stub_declares_each_public_name_where_it_is_defined() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    imported = {node.names[0].name: node.module for node in stub.body if isinstance(node, ast.ImportFrom)}
    modules: dict[str, str] = vars(dtscodec)["_MODULES"]
    assert imported == {name: modules[name] for name in PUBLIC if name != "open"} | {"__version__": "dtscodec.version"}


def test_opening_a_pack_does_not_import_torch() -> None:
    code = "import sys, dtscodec; dtscodec.open; dtscodec.DtsError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
