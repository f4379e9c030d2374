"""Endpoints that read: who one is, what a repository has, and its files."""

import re
from typing import Any
from urllib.parse import quote

import yaml  # type: ignore[import-untyped]

from tests.fakes.hub.repository import Blob, Commit, folders
from tests.fakes.hub.routes import Routes
from tests.fakes.hub.store import Store, unauthorized
from tests.fakes.hub.wire import Refused, Request, Response, as_json, ranged

routes = Routes()


@routes.add("GET", "/api/whoami-v2")
def whoami(store: Store, request: Request) -> Response:
    account = store.account(request)
    if account is None:
        raise unauthorized()
    token = {"displayName": "test", "role": account.role}
    return as_json({"type": "user", "name": account.user, "orgs": [], "auth": {"accessToken": token}})


@routes.add("GET", "/api/models/{repo}(/revision/{rev})?")
def model_info(store: Store, request: Request, repo: str, rev: str = "main") -> Response:
    repository = store.readable(request, repo)
    commit = repository.find(rev)
    siblings = [_sibling(path, blob, bool(request.query("blobs"))) for path, blob in sorted(commit.tree.items())]
    page = commit.tree.get("README.md")
    found: dict[str, Any] = {
        "id": repo,
        "modelId": repo,
        "author": repository.owner,
        "sha": commit.sha,
        "private": repository.private,
        "gated": "auto" if repository.gated else False,
        "siblings": siblings,
    }
    if page is not None and (metadata := card(repository.contents[page.etag])) is not None:
        found["cardData"] = metadata
    return as_json(found)


def _sibling(path: str, blob: Blob, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": path}
    lfs = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return {"rfilename": path, "size": blob.size, "blobId": blob.oid, **({"lfs": lfs} if blob.sha256 else {})}


def card(page: bytes) -> dict[str, Any] | None:
    """The metadata of a page, if they are any."""
    try:
        found = front_matter(page.decode(errors="replace"))
    except (yaml.YAMLError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def front_matter(page: str) -> Any:
    """What the Hub takes for metadata of a page, or None."""
    found = re.match(r"[\s\ufeff]*---(?:\r\n|\r|\n)([\S\s]*?)(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)", page)
    return yaml.safe_load(found[1] + "\n") if found else None


@routes.add("GET", "/api/models/{repo}/refs")
def refs(store: Store, request: Request, repo: str) -> Response:
    repository = store.readable(request, repo)

    def listed(kind: str, names: dict[str, str]) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()]

    branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
    return as_json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


@routes.add("GET", "/api/models/{repo}/commits/{rev}")
def commits(store: Store, request: Request, repo: str, rev: str) -> Response:
    repository = store.readable(request, repo)
    date, authors = "2026-01-01T00:00:00.000Z", [{"user": repository.owner}]
    return as_json(
        [
            {"id": commit.sha, "title": commit.title, "message": "", "authors": authors, "date": date}
            for commit in repository.history(rev)
        ]
    )


@routes.add("GET", "/api/models/{repo}/tree/{rev}(/{path})?")
def tree(store: Store, request: Request, repo: str, rev: str, path: str = "") -> Response:
    """One page, and a link to the next."""
    entries = _entries(store, store.readable(request, repo).find(rev))
    above = f"{path}/" if path else ""
    inside = [entry for name, entry in entries.items() if name.startswith(above)]
    if path and not inside:
        raise Refused(404, "EntryNotFound", f"{path} does not exist on {rev}")
    if request.query("recursive") != "true":
        inside = [entry for entry in inside if "/" not in entry["path"][len(above) :]]
    start = int(request.query("cursor", "0"))
    stop = start + store.page_size
    here = f"{request.origin}{request.path}?recursive={request.query('recursive')}"
    links = {"Link": f'<{here}&cursor={stop}>; rel="next"'} if stop < len(inside) else {}
    return as_json(inside[start:stop], headers=links)


@routes.add("POST", "/api/models/{repo}/paths-info/{rev}")
def paths_info(store: Store, request: Request, repo: str, rev: str) -> Response:
    entries = _entries(store, store.readable(request, repo).find(rev))
    return as_json([entries[path] for path in request.form.get("paths", []) if path in entries])


def _entries(store: Store, commit: Commit) -> dict[str, dict[str, Any]]:
    found = {
        path: {"type": "directory", "path": path, "oid": oid, "size": 0} for path, oid in folders(commit.tree).items()
    }
    for path, blob in commit.tree.items():
        found[path] = blob.describe(path)
        if blob.sha256 in store.xet_hashes:
            found[path]["xetHash"] = store.xet_hashes[blob.sha256]
    return dict(sorted(found.items()))


@routes.add("GET HEAD", "/{repo}/resolve/{rev}/{path}")
def resolve(store: Store, request: Request, repo: str, rev: str, path: str) -> Response:
    """A small file, or where to get a large one: on another origin, or the client would take it for the Hub itself."""
    repository = store.open_to(request, repo)
    commit = repository.find(rev)
    if path not in commit.tree:
        raise Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit.sha)
    blob = commit.tree[path]
    headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{blob.etag}"'}
    if blob.sha256 is None:
        return ranged(repository.contents[blob.etag], request.headers.get("Range"), headers)
    headers |= {
        "X-Linked-Etag": f'"{blob.sha256}"',
        "X-Linked-Size": str(blob.size),
        "Location": f"{cdn(request)}/cdn/{repo}/{blob.sha256}?filename={quote(path)}",
    }
    if blob.sha256 in store.xet_hashes:
        headers["X-Xet-Hash"] = store.xet_hashes[blob.sha256]
        headers["Link"] = f'<{request.origin}/api/models/{repo}/xet-read-token/{commit.sha}>; rel="xet-auth"'
    return Response(302, b"", headers)


def cdn(request: Request) -> str:
    """Where large files are: the same server under its other name."""
    return request.origin.replace("127.0.0.1", "localhost")


@routes.add("GET HEAD", "/cdn/{repo}/(?P<digest>[0-9a-f]{64})")
def download(store: Store, request: Request, repo: str, digest: str) -> Response:
    """The address is all that is needed; as signed storage does, it refuses a token beside it."""
    if request.token is not None:
        raise Refused(400, None, "Only one auth mechanism allowed")
    data = store.repositories[repo].contents.get(digest)
    if data is None:
        raise Refused(404, None, "no such object")
    return ranged(data, request.headers.get("Range"), {"ETag": f'"{digest}"'})
