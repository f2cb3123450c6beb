"""A small Hugging Face Hub on 127.0.0.1, for tests: the standard library only, everything in memory.

It speaks the part of the Hub's HTTP interface that the genuine client uses to push and pull: repositories with
branches, tags and commits, small files in commits and large ones by LFS, `resolve` with ranges, trees, private
repositories behind tokens, and the check of a card's metadata. Large files are served by a second server, the
*storage*, as the Hub's are by a CDN: the client must follow the redirect and must not send it the token.

    with HubServer() as hub:
        subprocess.run([...], env=hub.environment(home, token=hub.OWNER))

Not imitated: Xet (clients set HF_HUB_DISABLE_XET=1), gated repositories, pull requests, datasets and spaces.
"""

import base64
import hashlib
import json
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".parquet", ".arrow", ".zip", ".jpg", ".png")
LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "openrail", "other", "unknown"}
PIPELINE_TAGS = {"image-classification", "image-feature-extraction", "object-detection", "text-classification"}


class Refusal(Exception):
    """An answer other than 200, with the headers by which the client tells errors apart."""

    def __init__(self, status: int, code: str | None, message: str, **body: Any):
        super().__init__(message)
        self.status, self.code, self.message, self.body = status, code, message, body


@dataclass(frozen=True)
class File:
    """One file of a commit; `lfs` tells whether its content lies in the storage."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The git object id: of the content, or of the pointer that git holds instead."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        stored = pointer.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        lfs = {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        return {**entry, "lfs": lfs} if self.lfs else entry


@dataclass
class Repo:
    """A repository: commits by their sha, and the branches and tags that name them."""

    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        seed = f"{branch} {message} {len(self.commits)} {sorted((path, file.oid) for path, file in files.items())}"
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.refs[branch] = dict(files), message, sha
        return sha

    def resolve(self, revision: str) -> str:
        for names in (self.refs, self.tags):
            if revision in names:
                return names[revision]
        if revision in self.commits:
            return revision
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")


@dataclass
class Faults:
    """What goes wrong on request.

    Attributes:
        cut: File name -> number of bytes after which its next transfer that is longer breaks off; each works once.
        delay: Repository id -> seconds that each answer about it waits.
        status: Repository id -> status of each answer about it, such as 503.
        drop: Repository ids about which there is no answer; the connection closes.
    """

    cut: dict[str, int] = field(default_factory=dict)
    delay: dict[str, float] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    drop: set[str] = field(default_factory=set)


class HubServer:
    """The Hub and its storage, each on a free port of its own, in threads of this process.

    Attributes:
        OWNER, READER, STRANGER: Tokens: of user "geaau" with and without the right to write, and of user "stranger".
        repos: Repository id -> `Repo`, for a test to look at.
        log: (method, path, headers) of every request.
        faults: What goes wrong.
    """

    OWNER, READER, STRANGER = "hf_owner", "hf_reader", "hf_stranger"
    TOKENS = {OWNER: ("geaau", "write"), READER: ("geaau", "read"), STRANGER: ("stranger", "write")}

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.log: list[tuple[str, str, dict[str, str]]] = []
        self.faults = Faults()
        self.lock = threading.RLock()
        self._servers = []
        for handler in (_Hub, _Storage):
            kind = type(handler.__name__, (handler,), {"hub": self})
            self._servers.append(ThreadingHTTPServer(("127.0.0.1", 0), kind))
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def __enter__(self) -> "HubServer":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def environment(self, home: Path, token: str | None = None, **more: str) -> dict[str, str]:
        """Give the environment of a client process: this Hub, no Xet, a home of its own."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
        return {**kept, **own, **({"HF_TOKEN": token} if token else {}), **more}

    def put(self, repo_id: str, folder: Path, private: bool = False) -> None:
        """Place a folder in a new repository without any client."""
        self.repos[repo_id] = Repo(private)
        files = {}
        for path in sorted(folder.iterdir()):
            files[path.name] = file = File(path.read_bytes(), lfs=path.suffix in LFS_SUFFIXES)
            self.blobs[file.sha256] = file.content
        self.repos[repo_id].commit("main", files, "placed")

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Give what a repository holds at a revision."""
        repo = self.repos[repo_id]
        return {path: file.content for path, file in repo.commits[repo.resolve(revision)].items()}

    def requests(self, method: str, pattern: str) -> list[dict[str, str]]:
        """Give the headers of the requests of a method whose path matches a pattern."""
        return [headers for verb, path, headers in self.log if verb == method and re.search(pattern, path)]

    # --- what the Hub decides ---

    def user(self, headers: Any) -> tuple[str | None, str]:
        token = (headers.get("Authorization") or "").removeprefix("Bearer ").strip()
        if not token:
            return None, "read"
        if token not in self.TOKENS:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return self.TOKENS[token]

    def repo(self, repo_id: str, headers: Any, write: bool = False) -> Repo:
        """Find a repository as the Hub does: one that a user may not see is answered like one that is not there."""
        name, role = self.user(headers)
        repo = self.repos.get(repo_id)
        owns = name == repo_id.split("/")[0]
        if repo is None or (repo.private and not owns):
            status = 404 if name else 401
            raise Refusal(status, "RepoNotFound", "Repository not found" if name else "Invalid username or password.")
        if write and name is None:
            raise Refusal(401, None, "Invalid username or password.")
        if write and not (owns and role == "write"):
            raise Refusal(403, None, f"Forbidden: you must have write access to {repo_id}")
        return repo

    def create(self, body: dict[str, Any], headers: Any) -> dict[str, Any]:
        name, role = self.user(headers)
        if name is None:
            raise Refusal(401, None, "Invalid username or password.")
        owner = body.get("organization") or name
        repo_id = f"{owner}/{body['name']}"
        if owner != name or role != "write":
            raise Refusal(403, None, f"You don't have the rights to create a model under the namespace {owner!r}")
        url = f"{self.url}/{repo_id}"
        if repo_id in self.repos:
            raise Refusal(409, None, "You already created this model repo", url=url)
        private = body.get("visibility") == "private" or bool(body.get("private"))
        self.repos[repo_id] = repo = Repo(private)
        repo.commit("main", {".gitattributes": File(b"*.safetensors filter=lfs\n", lfs=False)}, "initial commit")
        return {"url": url, "name": repo_id, "id": "0" * 24}

    def apply(self, repo: Repo, branch: str, lines: list[dict[str, Any]]) -> str:
        files, message = dict(repo.commits[repo.resolve(branch)]), ""
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
                case "lfsFile" if value["oid"] in self.blobs:
                    files[value["path"]] = File(self.blobs[value["oid"]], lfs=True)
                case "lfsFile":
                    raise Refusal(400, None, f"LFS object {value['oid']} was not uploaded")
                case "deletedFile":
                    if files.pop(value["path"], None) is None:
                        raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
                case other:
                    raise Refusal(400, None, f"Unknown operation {other}")
        return repo.commit(branch, files, message)

    def info(self, repo_id: str, repo: Repo, revision: str) -> dict[str, Any]:
        sha = repo.resolve(revision)
        files = repo.commits[sha]
        card = _metadata(files["README.md"].content.decode()) if "README.md" in files else {}
        return {
            "_id": "0" * 24,
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.split("/")[0],
            "sha": sha,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [str(tag) for tag in card.get("tags") or []],
            "siblings": [{"rfilename": path} for path in sorted(files)],
            "cardData": card,
            "pipeline_tag": card.get("pipeline_tag"),
            "library_name": card.get("library_name"),
        }


def _metadata(content: str) -> dict[str, Any]:
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", content, re.DOTALL)
    loaded = yaml.safe_load(match[1]) if match else {}
    if not isinstance(loaded, dict):
        raise ValueError("metadata must be a mapping")
    return loaded


def card_errors(content: str) -> list[str]:
    """Check a card's metadata by the rules that the Hub documents; gives what is wrong."""
    try:
        data = _metadata(content)
    except (ValueError, yaml.YAMLError) as error:
        return [f"The YAML block is invalid: {' '.join(str(error).split())}"]
    errors = []
    if data.get("license", "other") not in LICENSES:
        errors.append(f'"license" must be one of the known identifiers, got {data["license"]!r}')
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        errors.append('"license_name" and "license_link" are required with "license: other"')
    if data.get("license_name") and not re.fullmatch(r"[a-z0-9-.]+", data["license_name"]):
        errors.append('"license_name" must hold lower-case letters, digits, "-" and "." only')
    if data.get("pipeline_tag", "image-classification") not in PIPELINE_TAGS:
        errors.append(f'"pipeline_tag" is unknown: {data["pipeline_tag"]!r}')
    for key in ("tags", "metrics", "datasets"):
        if not all(isinstance(item, str) for item in data.get(key) or []):
            errors.append(f'"{key}" must be a list of strings')
    repo_ids = data.get("base_model") or []
    for repo_id in [repo_ids] if isinstance(repo_ids, str) else repo_ids:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo_id):
            errors.append(f'"base_model" with value {repo_id!r} is not a valid model id')
    return errors + _model_index_errors(data.get("model-index"))


def _model_index_errors(index: Any) -> list[str]:
    if index is None:
        return []
    if not isinstance(index, list) or not index:
        return ['"model-index" must be a list']
    errors = []
    for model in index:
        if not isinstance(model.get("name"), str) or not model["name"]:
            errors.append('"model-index[0].name" is required')
        for result in model.get("results") or []:
            where = '"model-index[0].results'
            if not (result.get("task") or {}).get("type"):
                errors.append(f'{where}.task.type" is required')
            for key in ("type", "name"):
                if not (result.get("dataset") or {}).get(key):
                    errors.append(f'{where}.dataset.{key}" is required')
            if not result.get("metrics"):
                errors.append(f'{where}.metrics" must have at least one entry')
            for metric in result.get("metrics") or []:
                if not metric.get("type") or not isinstance(metric.get("value"), int | float | str):
                    errors.append(f'{where}.metrics" must have type and value, got {metric}')
            source = result.get("source")
            if source is not None and not str(source.get("url", "")).startswith("http"):
                errors.append(f'{where}.source.url" must be a URL')
    return errors


class _Handler(BaseHTTPRequestHandler, ABC):
    """HTTP/1.1 with bodies of known or chunked length; errors as the Hub words them."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: Any) -> None:
        """Keep test output clean."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):  # a client that went away
            self.close_connection = True

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline().strip() or b"0", 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status: int, data: Any = None, headers: dict[str, str] | None = None) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        received = self.body()
        self.hub.log.append((self.command, self.path, dict(self.headers)))
        repo_id = "/".join(unquote(parts.path).removeprefix("/api/models").strip("/").split("/")[:2])
        if repo_id in self.hub.faults.drop:
            self.close_connection = True
            return
        time.sleep(self.hub.faults.delay.get(repo_id, 0))
        try:
            if repo_id in self.hub.faults.status:
                raise Refusal(self.hub.faults.status[repo_id], None, "This Hub is having a bad day")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            with self.hub.lock:
                answer = self.answer(parts.path, query, received)
            if isinstance(answer, tuple):
                self.deliver(*answer)
            elif answer is not _SENT:
                self.send(200, answer)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self.send(refusal.status, {"error": refusal.message, **refusal.body}, headers)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    @abstractmethod
    def answer(self, path: str, query: dict[str, str], received: bytes) -> Any:
        """Give what is sent as JSON, a file to deliver, or say that the answer is out already."""

    def deliver(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        """Send a file, or the range of it that was asked for, or less if it is to be cut."""
        first, last, status = 0, len(content) - 1, 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last, status = int(match[1]), min(int(match[2] or last), last), 206
            if first > last:
                raise Refusal(416, None, "Requested range not satisfiable")
            headers = {**headers, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        part = content[first : last + 1]
        common = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
        common["Content-Length"] = str(len(part))
        keep = self.hub.faults.cut.get(path, len(part))
        is_cut = self.command != "HEAD" and keep < len(part)
        self.send(status, part[:keep], common)
        if is_cut:
            del self.hub.faults.cut[path]
            self.wfile.flush()
            self.close_connection = True


class _Storage(_Handler):
    """Where large files lie: signed addresses, which must come without the Hub's token."""

    def answer(self, path: str, query: dict[str, str], received: bytes) -> Any:
        if self.headers.get("Authorization"):
            raise Refusal(400, None, "Only one auth mechanism allowed")
        sha256, name = path.strip("/").split("/", 1)
        if self.command == "PUT":
            if hashlib.sha256(received).hexdigest() != sha256:
                raise Refusal(400, None, "The content does not have the promised sha256")
            self.hub.blobs[sha256] = received
            return {}
        return unquote(name), self.hub.blobs[sha256], {"ETag": f'"{sha256}"'}


class _Hub(_Handler):
    """The Hub itself."""

    def answer(self, path: str, query: dict[str, str], received: bytes) -> Any:
        hub, body = self.hub, {}
        if path.startswith("/_break/"):  # not of the Hub: a client spoils a repository for itself
            hub.faults.status[path.removeprefix("/_break/")] = 503
            return {}
        if path in ("/api/validate-yaml", "/api/repos/create"):
            body = json.loads(received)
        if path == "/api/validate-yaml":
            if errors := card_errors(body["content"]):
                raise Refusal(400, None, "Invalid metadata", errors=[{"message": text} for text in errors], warnings=[])
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return hub.create(body, self.headers)
        if path == "/api/whoami-v2":
            name, role = hub.user(self.headers)
            if name is None:
                raise Refusal(401, None, "Invalid username or password.")
            return {"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"role": role}}}
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.lfs_batch(match[1], json.loads(received))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(\w+)(?:/([^/]+))?)?(?:/(.*))?", path):
            repo_id, what, revision, rest = (unquote(part) if part else "" for part in match.groups())
            return self.api(repo_id, what, revision or "main", rest, query, received)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)", path):
            return self.resolve(*map(unquote, match.groups()))
        raise Refusal(404, "RepoNotFound", "Repository not found")

    def lfs_batch(self, repo_id: str, body: dict[str, Any]) -> Any:
        self.hub.repo(repo_id, self.headers, write=True)
        objects = []
        for item in body["objects"]:
            wanted = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.blobs:
                wanted["actions"] = {"upload": {"href": f"{self.hub.storage_url}/{item['oid']}/upload", "header": {}}}
            objects.append(wanted)
        return {"transfer": "basic", "objects": objects}

    def api(self, repo_id: str, what: str, revision: str, rest: str, query: dict[str, str], received: bytes) -> Any:
        hub = self.hub
        repo = hub.repo(repo_id, self.headers, write=what in ("preupload", "commit", "branch", "tag"))
        match what:
            case "" | "revision":
                return hub.info(repo_id, repo, revision)
            case "refs":
                branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": s} for n, s in repo.refs.items()]
                tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": s} for n, s in repo.tags.items()]
                return {"branches": branches, "tags": tags, "converts": []}
            case "branch" | "tag":
                body = json.loads(received or b"{}")
                names, name = (repo.refs, revision) if what == "branch" else (repo.tags, body["tag"])
                if name in names:
                    raise Refusal(409, None, f"Reference {name} already exists")
                names[name] = repo.resolve(body.get("startingPoint") or ("main" if what == "branch" else revision))
                return {}
            case "tree":
                files = repo.commits[repo.resolve(revision)]
                if rest and not any(path.startswith(f"{rest}/") for path in files):
                    raise Refusal(404, "EntryNotFound", f"{rest} does not exist on {revision}")
                return [file.entry(path) for path, file in sorted(files.items()) if path.startswith(rest)]
            case "preupload":
                files = repo.commits[repo.resolve(revision)]
                return {"files": [self.upload_mode(item, files) for item in json.loads(received)["files"]]}
            case "commit":
                sha = hub.apply(repo, revision, [json.loads(line) for line in received.splitlines() if line.strip()])
                return {"success": True, "commitOid": sha, "commitUrl": f"{hub.url}/{repo_id}/commit/{sha}"}
        raise Refusal(404, None, f"No such endpoint: {what}")

    @staticmethod
    def upload_mode(item: dict[str, Any], files: dict[str, File]) -> dict[str, Any]:
        is_large = item["path"].lower().endswith(LFS_SUFFIXES) or item["size"] > 10 << 20
        known = files.get(item["path"])
        mode = "lfs" if is_large else "regular"
        return {"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": known and known.oid}

    def resolve(self, repo_id: str, revision: str, path: str) -> Any:
        repo = self.hub.repo(repo_id, self.headers)
        sha = repo.resolve(revision)
        file = repo.commits[sha].get(path)
        if file is None:
            # The client remembers at which commit a file was missing.
            error = {"X-Repo-Commit": sha, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.send(404, {"error": "Entry not found"}, error)
            return _SENT
        headers = {"X-Repo-Commit": sha, "ETag": f'"{file.sha256 if file.lfs else file.oid}"'}
        if not file.lfs:
            return path, file.content, headers
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        self.send(302, b"", {**headers, "Location": f"{self.hub.storage_url}/{file.sha256}/{path}"})
        return _SENT


_SENT = object()
