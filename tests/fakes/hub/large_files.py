"""Endpoints by which large files come: LFS, at once or in parts, and the tokens of Xet."""

import time
from hashlib import sha256
from typing import Any

from tests.fakes.hub.reading import cdn
from tests.fakes.hub.repository import Repository
from tests.fakes.hub.routes import Routes
from tests.fakes.hub.store import Store
from tests.fakes.hub.wire import Refused, Request, Response, as_json

routes = Routes()

_DIGEST, _SIZE = "(?P<digest>[0-9a-f]{64})", "(?P<size>[0-9]+)"


@routes.add("POST", "/{repo}[.]git/info/lfs/objects/batch")
def batch(store: Store, request: Request, repo: str) -> Response:
    """What to do for each object: nothing if it is there, else one upload, or one for each part and a completion."""
    repository = store.writable(request, repo)
    objects = [_actions(store, request, repository, asked["oid"], asked["size"]) for asked in request.json["objects"]]
    return as_json({"transfer": "multipart" if store.part_size else "basic", "objects": objects})


def _actions(store: Store, request: Request, repository: Repository, digest: str, size: int) -> dict[str, Any]:
    if digest in repository.contents:
        return {"oid": digest, "size": size}
    place = f"cdn/upload/{repository.name}/{digest}/{size}"
    upload: dict[str, Any] = {"href": f"{cdn(request)}/{place}"}
    if store.part_size and size > store.part_size:
        count = -(-size // store.part_size)
        parts = {f"{number:05}": f"{cdn(request)}/{place}/{number}" for number in range(1, count + 1)}
        upload = {"href": f"{request.origin}/complete/{place}", "header": {"chunk_size": str(store.part_size), **parts}}
    verify = {"href": f"{request.origin}/{repository.name}.git/info/lfs/objects/verify"}
    return {"oid": digest, "size": size, "actions": {"upload": upload, "verify": verify}}


@routes.add("PUT", f"/cdn/upload/{{repo}}/{_DIGEST}/{_SIZE}")
def put(store: Store, request: Request, repo: str, digest: str, size: str) -> Response:
    _keep(store.repositories[repo], digest, int(size), request.body)
    return Response()


@routes.add("PUT", f"/cdn/upload/{{repo}}/{_DIGEST}/{_SIZE}/(?P<number>[0-9]+)")
def put_part(store: Store, request: Request, repo: str, digest: str, size: str, number: str) -> Response:
    store.parts[digest, int(number)] = request.body
    return Response(headers={"ETag": f'"{sha256(request.body).hexdigest()}"'})


@routes.add("POST", f"/complete/cdn/upload/{{repo}}/{_DIGEST}/{_SIZE}")
def complete(store: Store, request: Request, repo: str, digest: str, size: str) -> Response:
    """Each part must be there as its tag says; all together must be what was announced."""
    parts = [store.parts.pop((digest, part["partNumber"]), b"") for part in request.json["parts"]]
    if [f'"{sha256(part).hexdigest()}"' for part in parts] != [part["etag"] for part in request.json["parts"]]:
        raise Refused(400, None, "InvalidPart")
    _keep(store.repositories[repo], digest, int(size), b"".join(parts))
    return as_json({"success": True})


def _keep(repository: Repository, digest: str, size: int, data: bytes) -> None:
    if (len(data), sha256(data).hexdigest()) != (size, digest):
        raise Refused(400, None, "BadDigest: what was sent is not what was announced")
    repository.contents[digest] = data


@routes.add("POST", "/{repo}[.]git/info/lfs/objects/verify")
def verify(store: Store, request: Request, repo: str) -> Response:
    asked = request.json
    found = store.writable(request, repo).contents.get(asked["oid"])
    if found is None or len(found) != asked["size"]:
        raise Refused(404, None, "no such object")
    return as_json({})


@routes.add("GET", "/api/models/{repo}/xet-(?P<kind>read|write)-token/{rev}")
def xet_token(store: Store, request: Request, repo: str, kind: str, rev: str) -> Response:
    """Xet's local mode takes a folder where it would take a server."""
    (store.writable if kind == "write" else store.open_to)(request, repo)
    if store.xet_folder is None:
        raise Refused(404, None, "this Hub has no Xet")
    url, token, end = f"local://{store.xet_folder}", "xet", int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(end)}
    return as_json({"casUrl": url, "accessToken": token, "exp": end}, headers=headers)
