"""The page of the fidelity benchmark, and the texts that its judge uses."""

import json

from benchmarks.fidelity.report import fidelity_page
from tests.support import ROOT

FOLDER = ROOT / "benchmarks" / "fidelity"


def test_the_recorded_page_is_what_the_recorded_figures_give() -> None:
    result = json.loads((FOLDER / "result.json").read_text())
    assert (FOLDER / "RESULT.md").read_text() == fidelity_page(result)
