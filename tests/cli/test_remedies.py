"""What errors recommend: spelled for Python below the command line, and as options on it."""

import ast
import pickle
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dtscodec import errors
from dtscodec.checkpoints.open import open_checkpoint
from dtscodec.cli.remedies import OPTIONS, PYTHON_ONLY, spell_option
from dtscodec.errors import BaseMismatchError, DtsError, EncodeError, Remedy
from tests.support import ROOT

PACKAGE = ROOT / "dtscodec"
BELOW = sorted(
    path for path in PACKAGE.rglob("*.py") if (PACKAGE / "cli") not in path.parents and path.name != "browser.py"
)
"""Modules below the command line, but that which holds a list of a browser's own options."""

OTHER_PROGRAMS = {
    "executors/dask_cluster.py": {"--nthreads"},
    "hub/model_card.py": {"-o"},
}
"""Options in commands that messages and pages show: of Dask, and of ours on a pack's page."""

FLAG = re.compile(r"(?<![^\s`'\"(])(--[a-z][a-z-]+|-o\b)")


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def remedies(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Remedy":
            yield node


def arguments(call: ast.Call) -> set[str]:
    """The arguments that a remedy names: in braces of its text, and as keys of its values."""
    text = "".join(texts(call.args[0]))
    named = {name for _, name, _, _ in string.Formatter().parse(text) if name}
    return named | {key for node in call.args[1:] for key in texts(node) if key in OPTIONS}


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_option_of_the_command_line_stands_below_it(path: Path) -> None:
    found = {flag for text in texts(ast.parse(path.read_text())) for flag in FLAG.findall(text)}
    assert found <= OTHER_PROGRAMS.get(path.relative_to(PACKAGE).as_posix(), set())


def test_every_argument_that_a_remedy_names_has_an_option() -> None:
    named = {(path.name, name) for path in BELOW for call in remedies(path) for name in arguments(call)}
    assert named
    assert {name for _, name in named} <= OPTIONS.keys() | PYTHON_ONLY


def test_every_option_is_one_that_some_remedy_names() -> None:
    named = {name for path in BELOW for call in remedies(path) for name in arguments(call)}
    assert OPTIONS.keys() | PYTHON_ONLY <= named | {"out"}


def test_a_remedy_names_arguments_in_python_and_options_on_the_command_line() -> None:
    error = EncodeError(
        "weight: expected finite elements", Remedy("store it exactly with {raw}", {"raw": "['w[[]0]']"})
    )
    assert str(error) == "weight: expected finite elements; store it exactly with raw=['w[[]0]']"
    assert error.spelled(spell_option) == "weight: expected finite elements; store it exactly with --raw 'w[[]0]'"


@pytest.mark.parametrize("kind", [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, DtsError)])
def test_errors_pass_between_processes_with_their_remedy(kind: type[DtsError]) -> None:
    remedy = Remedy("store it exactly with {raw}", {"raw": "['head']"})
    if issubclass(kind, errors.RefusedError):
        error: DtsError = kind("base-leaf", "weight", "expected another", "7", remedy)
    elif issubclass(kind, errors.SizeError):
        error = kind("weight: expected another", remedy, 1000)
    else:
        error = kind("weight: expected another", remedy)
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), back.problem, back.remedy) == (kind, error.problem, remedy)
    assert str(back) == str(error)


def test_a_wrapped_remedy_may_hold_braces() -> None:
    assert str(Remedy.literal("start a worker for {host}")) == "start a worker for {host}"


def test_an_error_within_another_place_has_the_same_remedy() -> None:
    error = errors.FormatError("header", "index", "expected JSON", "3", Remedy("copy it again"))
    assert error.within("a.safetensors").remedy == error.remedy
    assert BaseMismatchError("base-leaf", "a", "b", "7").remedy is None


def ours(node: ast.expr | None) -> bool:
    """Whether an ``except`` catches nothing but errors of ours."""
    kinds = node.elts if isinstance(node, ast.Tuple) else [node]
    return all(isinstance(kind, ast.Name) and is_ours(getattr(errors, kind.id, None)) for kind in kinds)


def is_ours(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, DtsError)


def whole_texts(handler: ast.ExceptHandler) -> list[int]:
    """Lines that put the whole text of the caught error, its remedy spelled for Python included, into another text."""
    found = []
    for node in ast.walk(handler):
        shown = [node.value] if isinstance(node, ast.FormattedValue) else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("str", "one_line"):
            shown = node.args
        found += [each.lineno for each in shown if isinstance(each, ast.Name) and each.id == handler.name]
    return found


@pytest.mark.parametrize("path", BELOW, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_wrapped_error_passes_its_problem_and_its_remedy_on_apart(path: Path) -> None:
    """A remedy that became part of a problem would be spelled for Python on the command line, too."""
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    assert not [line for handler in handlers if ours(handler.type) for line in whole_texts(handler)]


def test_the_remedy_for_a_sparse_tensor_is_that_of_its_checkpoint_too() -> None:
    with pytest.raises(errors.CheckpointError) as caught:
        open_checkpoint({"w": torch.eye(2).to_sparse()})
    assert caught.value.problem.endswith("'w': expected a dense tensor, got a sparse one (torch.sparse_coo)")
    assert caught.value.remedy == Remedy("use .to_dense()")
