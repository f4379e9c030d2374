from pathlib import Path

import pytest

from tests.models import ARCHITECTURES
from tests.runtime.helpers import Tasks, make_tasks


@pytest.fixture(scope="session", params=ARCHITECTURES)
def switchable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """Every architecture with two tasks."""
    return make_tasks(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session", params=[name for name in ARCHITECTURES])
def attachable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """Every architecture with two tasks that change only layers that can have a side branch."""
    return make_tasks(request.param, tmp_path_factory.mktemp(request.param), attachable=True)


@pytest.fixture
def bert(tmp_path: Path) -> Tasks:
    return make_tasks("bert", tmp_path)
