"""A model hub on this machine: the endpoints that `huggingface_hub` uses, and transfers that go wrong on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bettersynth.core.publish import sha256_bytes


class HubServer(ThreadingHTTPServer):
    """Serves `repositories` (name → file → bytes), each at one commit.

    `faults[file]` holds what happens to the next requests for a file: `cut` breaks off half way, `alter` changes a
    byte. `served` lists every transfer as `(file, first byte)`. Files of `gated` repositories are given to nobody.
    What is uploaded with `token` is in `repositories`, and whether it is private in `private`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.served: list[tuple[str, int]] = []
        self.gated: set[str] = set()
        self.token = "hf_write"
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """What to set HF_ENDPOINT to."""
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, folder: Path, **extra: bytes) -> str:
        """Serve a folder as a repository; return its commit."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories[name] = {**files, **extra}
        return commit(name)


def commit(name: str) -> str:
    """The commit of a repository."""
    return hashlib.sha1(name.encode()).hexdigest()


def describe(name: str, content: bytes) -> dict[str, object]:
    """A file as the hub lists it: weights are kept in LFS."""
    entry: dict[str, object] = {"rfilename": name, "size": len(content)}
    if name.endswith((".safetensors", ".bin", ".parquet")):
        return {**entry, "lfs": {"sha256": sha256_bytes(content), "size": len(content), "pointerSize": 134}}
    return {**entry, "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Make a repository, say how files are to come, take them, and commit them."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") not in (f"Bearer {self.server.token}", None):
            return self._send(401, b"{}", {})
        self._answer_json(*self._posted(self.path.partition("?")[0], body))
        return None

    def do_PUT(self) -> None:
        """Take a large file."""
        self.server.large[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200, b"", {})

    def _answer_json(self, status: int, answer: object) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _posted(self, path: str, body: bytes) -> tuple[int, object]:
        """Status and answer."""
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else given["name"]
            self.server.private[name] = given["private"]
            self.server.repositories.setdefault(name, {})
            return 200, {"url": f"{self.server.endpoint}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            large = (".safetensors", ".parquet")
            told = [{"path": f["path"], "uploadMode": modes[f["path"].endswith(large)]} for f in files]
            return 200, {"files": [{**one, "shouldIgnore": False, "oid": None} for one in told]}
        if match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.repositories[match[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.repositories[match[1]][value["path"]] = self.server.large[value["oid"]]
            return 200, {
                "commitUrl": f"{self.server.endpoint}/{match[1]}/commit/{commit(match[1])}",
                "commitOid": commit(match[1]),
                "pullRequestUrl": None,
            }
        return 404, {}

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._describe(match[1], match[2])
        elif match := re.fullmatch(r"(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3], body)
        else:
            self._send(404, b"", {})

    def _describe(self, name: str, revision: str | None) -> None:
        files = self.server.repositories.get(name)
        if files is None or revision not in (None, "main", commit(name)):
            code = "RepoNotFound" if files is None else "RevisionNotFound"
            return self._send(404, b"{}", {"X-Error-Code": code})
        answer = {
            "id": name,
            "sha": commit(name),
            "cardData": {"license": "apache-2.0"},
            "siblings": [describe(file, content) for file, content in sorted(files.items())],
        }
        return self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, revision: str, file: str, body: bool) -> None:
        if name in self.server.gated:
            return self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        content = self.server.repositories[name][file]
        start = int(re.sub(r"bytes=(\d+)-", r"\1", self.headers.get("Range", "bytes=0-")))
        headers = {"ETag": f'"{sha256_bytes(content)}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if not body:
            return self._send(200, content, headers, body=False)
        self.server.served.append((file, start))
        fault = self.server.faults[file].pop(0) if self.server.faults[file] else None
        rest = content[start:]
        if fault == "alter":
            rest = rest[:-1] + bytes([rest[-1] ^ 1])
        return self._send(206 if start else 200, rest, headers, cut=fault == "cut")

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, body: bool = True, cut: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True
