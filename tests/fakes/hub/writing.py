"""Endpoints that write: repositories, branches, tags, and commits."""

import base64
import json
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.fakes.hub.reading import front_matter
from tests.fakes.hub.repository import Blob, Repository, large_blob, revision_not_found
from tests.fakes.hub.routes import Routes
from tests.fakes.hub.store import Store
from tests.fakes.hub.wire import Refused, Request, Response, as_json

routes = Routes()

RELATIONS = ("adapter", "finetune", "merge", "quantized")


@routes.add("POST", "/api/repos/create")
def create(store: Store, request: Request) -> Response:
    account, asked = store.account(request), request.json
    owner = asked.get("organization") or (account.user if account else "")
    store.check_writer(request, owner)
    name = f"{owner}/{asked['name']}"
    url = f"{request.origin}/{name}"
    if name in store.repositories:
        return as_json({"error": "You already created this model repo", "url": url}, 409)
    store.create(name, private=asked.get("visibility") == "private")
    return as_json({"url": url, "name": name})


@routes.add("POST", "/api/models/{repo}/branch/{rev}")
def branch(store: Store, request: Request, repo: str, rev: str) -> Response:
    repository = store.writable(request, repo)
    return _new_ref(repository.branches, rev, repository.find(request.json.get("startingPoint", "main")).sha)


@routes.add("DELETE", "/api/repos/delete")
def delete(store: Store, request: Request) -> Response:
    name = f"{request.json['organization']}/{request.json['name']}"
    store.writable(request, name)
    del store.repositories[name]
    return as_json({})


@routes.add("DELETE", "/api/models/{repo}/branch/{rev}")
def delete_branch(store: Store, request: Request, repo: str, rev: str) -> Response:
    branches = store.writable(request, repo).branches
    if rev == "main":
        raise Refused(403, None, "Cannot delete refs/heads/main")
    if rev not in branches:
        raise revision_not_found(rev)
    del branches[rev]
    return as_json({})


@routes.add("POST", "/api/models/{repo}/tag/{rev}")
def tag(store: Store, request: Request, repo: str, rev: str) -> Response:
    repository = store.writable(request, repo)
    return _new_ref(repository.tags, request.json["tag"], repository.find(rev).sha)


def _new_ref(refs: dict[str, str], name: str, sha: str) -> Response:
    if name in refs:
        raise Refused(409, None, f"Reference already exists: {name}")
    refs[name] = sha
    return as_json({})


@routes.add("POST", "/api/validate-yaml")
def validate_yaml(store: Store, request: Request) -> Response:
    """The parts of the Hub's check that depend on nothing else on the Hub."""
    try:
        card = front_matter(request.json["content"])
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    if card is None:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    relation = card.get("base_model_relation", RELATIONS[0]) if isinstance(card, dict) else None
    if relation not in RELATIONS:
        return as_json(
            {"errors": [{"message": f'"base_model_relation" must be one of {RELATIONS}'}], "warnings": []}, 400
        )
    return as_json({"errors": [], "warnings": []})


@routes.add("POST", "/api/models/{repo}/preupload/{rev}")
def preupload(store: Store, request: Request, repo: str, rev: str) -> Response:
    """How each file is to come, and what has its name now, so that the client leaves out what did not change."""
    repository = store.writable(request, repo)
    there = repository.find(rev).tree

    def described(file: dict[str, Any]) -> dict[str, Any]:
        is_large = store.is_large(file["size"], base64.b64decode(file["sample"]))
        known = {"oid": there[file["path"]].etag} if file["path"] in there else {}
        mode = "lfs" if is_large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known}

    return as_json({"files": [described(file) for file in request.json["files"]]})


@routes.add("POST", "/api/models/{repo}/commit/{rev}")
def commit(store: Store, request: Request, repo: str, rev: str) -> Response:
    repository = store.writable(request, repo)
    if rev not in repository.branches:
        raise revision_not_found(rev)
    lines = [json.loads(line) for line in request.body.splitlines()]
    header = lines[0]["value"]
    changes: dict[str, Blob | None] = {}
    for line in lines[1:]:
        changes |= _change(store, repository, rev, line["key"], line["value"])
    made = repository.commit(rev, header["summary"], changes, header.get("parentCommit"))
    return as_json({"success": True, "commitOid": made.sha, "commitUrl": f"{request.origin}/{repo}/commit/{made.sha}"})


def _change(store: Store, repository: Repository, rev: str, key: str, value: dict[str, Any]) -> dict[str, Blob | None]:
    path = value["path"]
    if key == "file":
        return {path: repository.store(base64.b64decode(value["content"]), is_large=False)}
    if key == "lfsFile":
        return {path: _uploaded(store, repository, value["oid"], value.get("size"))}
    above = f"{path.rstrip('/')}/"
    gone = [
        name
        for name in repository.find(rev).tree
        if name == path or (key, name[: len(above)]) == ("deletedFolder", above)
    ]
    if not gone:
        raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
    return dict.fromkeys(gone)


def _uploaded(store: Store, repository: Repository, digest: str, size: int | None) -> Blob:
    """A large file, which has come before; a copy of one names no size."""
    if digest in repository.contents:
        return large_blob(digest, len(repository.contents[digest]))
    if digest in store.xet_hashes and size is not None:
        return large_blob(digest, size)
    raise Refused(400, None, f"Your push was rejected: the LFS object {digest} does not exist")
