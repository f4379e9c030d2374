"""The real client's other way of large files, Xet, whose local mode takes a folder where it would take a server."""

import json
import random
from hashlib import sha256
from pathlib import Path

import pytest

from tests.fakes.hub.server import LoopbackHub
from tests.hub.helpers import run_python

HASH = "import hf_xet; print(hf_xet.hash_files([{path!r}])[0].hash)"
UPLOAD = """
from huggingface_hub import upload_file
print(upload_file(path_or_fileobj={path!r}, path_in_repo="model.safetensors", repo_id="me/x").oid)
"""
DOWNLOAD = """
import json
from huggingface_hub import hf_hub_download, snapshot_download
one = hf_hub_download("me/x", "model.safetensors", revision={sha!r})
print(json.dumps([one, snapshot_download("me/x", revision={sha!r}, cache_dir={cache!r})]))
"""


def test_a_file_goes_through_xet_and_comes_back(
    hub: LoopbackHub, hub_environment: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("hf_xet")
    data = random.Random(1).randbytes(2_000_000)
    source = tmp_path / "source"
    source.write_bytes(data)
    hub.create("me/x")
    hub.xet_folder = tmp_path / "xet"
    environment = {name: value for name, value in hub_environment.items() if name != "HF_HUB_DISABLE_XET"}
    hub.xet_hashes[sha256(data).hexdigest()] = run_python(HASH.format(path=f"{source}"), environment)
    try:
        sha = run_python(UPLOAD.format(path=f"{source}"), environment)
    except AssertionError as error:
        if "for url (local://" not in str(error):
            raise
        pytest.skip(f"this hf_xet has no local mode, it takes the folder for a server: {error}")
    cache = f"{tmp_path}/other_cache"
    one, snapshot = json.loads(run_python(DOWNLOAD.format(sha=sha, cache=cache), environment))
    assert Path(one).read_bytes() == (Path(snapshot) / "model.safetensors").read_bytes() == data
    assert not any(logged.method == "PUT" or logged.path.startswith("/cdn/") for logged in hub.requests)
    assert hub.history("me/x")[0].sha == sha
