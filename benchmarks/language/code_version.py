"""A short digest of code, by which points are known to be of the encoder that there is."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENCODER = tuple(ROOT / "dtscodec" / room for room in ("encoding", "linalg", "quantize", "kernels"))
"""Code that decides on the bytes of a pack, and on the weights that they become."""
CALIBRATION = (*ENCODER, ROOT / "dtscodec" / "calibration")


def code_version(paths: Iterable[Path]) -> str:
    """Return a digest of the code of Python files: comments and docstrings do not change it.

    Parameters
    ----------
    paths : iterable of Path
        Files, and folders of files.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(_without_docstrings(file.read_text()).encode())
    return digest.hexdigest()[:8]


def _without_docstrings(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
