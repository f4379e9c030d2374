import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session, constants

from dtscodec.storage import hub_tree
from tests.cli.helpers import CODED, Cli, base_tensors, fine_tensors, write_model
from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import TASKS


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A server of one's own. In this process the client knows no other Hub, no token, and an empty cache.

    What it read when it was imported, such as the endpoint of functions that need no `HfApi`, stays.
    """
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with LoopbackHub().running() as running:
        for name, value in {
            "ENDPOINT": running.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{running.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_CACHE": f"{tmp_path}/hub_cache",
            "HF_TOKEN_PATH": f"{tmp_path}/no_token",
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield running
    close_session()


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    """The client of somebody who may write to `me/...`."""
    return HfApi(endpoint=hub.endpoint, token="hf_me")


@pytest.fixture
def hub_environment(hub: LoopbackHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a subprocess that knows no Hub but this one; the client reads it when it is imported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return inherited | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": f"{tmp_path}/hf_home",
        "HF_TOKEN": "hf_me",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


@pytest.fixture
def cli(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    """Commands of somebody who may write to `me/...`, where `me/base` is, in a folder with fine-tunes of it."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    write_model(work / "base", base_tensors())
    for seed, task in enumerate(TASKS, start=11):
        write_model(work / task, fine_tensors(seed), task=task)
    hub.create("me/base")
    hub.commit("me/base", {path.name: path.read_bytes() for path in (work / "base").iterdir()})
    hub_tree.clear_listings()
    yield Cli(capsys, work)
    hub_tree.clear_listings()


@pytest.fixture
def pushed(cli: Cli, hub: LoopbackHub) -> LoopbackHub:
    """The Hub with packs of all tasks."""
    cli.run("encode", "hf://me/base", *TASKS, "-o", "packs", *CODED)
    assert cli.run("push", "packs", "me/packs")[0] == 0
    hub_tree.clear_listings()
    hub.requests.clear()
    return hub
