"""A stand-in for the Hugging Face Hub on loopback: repositories in memory, with what huggingface_hub asks of them."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secret"


class Hub(ThreadingHTTPServer):
    """Keeps each repository's revisions: name → commit → files. A push needs the token, and so does a private read."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.private: dict[str, bool] = {}
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[str, dict[str, str]] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def create(self, name: str, private: bool) -> None:
        self.private[name], self.commits[name], self.branches[name] = private, {}, {}
        self.commit(name, "main", {})

    def commit(self, name: str, branch: str, files: dict[str, bytes]) -> str:
        before = self.commits[name].get(self.branches[name].get(branch, ""), {})
        sha = hashlib.sha1(repr((branch, sorted(files.items()), len(self.commits[name]))).encode()).hexdigest()
        self.commits[name][sha] = {**before, **files}
        self.branches[name][branch] = sha
        return sha

    def sha(self, name: str, revision: str) -> str | None:
        found = self.branches.get(name, {}).get(revision, revision)
        return found if found in self.commits.get(name, {}) else None


class _Request(BaseHTTPRequestHandler):
    server: Any

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            known = name in self.server.commits
            if not known:
                self.server.create(name, wanted.get("visibility") == "private")
            return self._send({"url": f"{self.server.address}/{name}"}, 409 if known else 200)
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        call = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/(\w+)", self.path.partition("?")[0])
        if call is None or self.server.sha(call[1], call[3]) is None:
            return self._send({"error": "Invalid rev id"}, 404, code="RevisionNotFound")
        if call[2] == "preupload":
            names = [each["path"] for each in json.loads(body)["files"]]
            return self._send({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        lines = [json.loads(line) for line in body.splitlines()]
        added = [line["value"] for line in lines if line["key"] == "file"]
        sha = self.server.commit(call[1], call[3], {f["path"]: base64.b64decode(f["content"]) for f in added})
        return self._send({"commitUrl": f"{self.server.address}/{call[1]}/commit/{sha}", "commitOid": sha})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        call = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(\w+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path)
        found = call or file
        name = found[1] if found else ""
        hidden = self.server.private.get(name, False) and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if found is None or name not in self.server.commits or hidden:
            return self._send({"error": "Repository not found"}, 401, code="RepoNotFound")
        sha = self.server.sha(name, found[3] if call else found[2])
        if sha is None:
            return self._send({"error": "Invalid rev id"}, 404, code="RevisionNotFound")
        files = self.server.commits[name][sha]
        if call and call[2] == "revision":
            return self._send({"id": name, "sha": sha, "siblings": [{"rfilename": each} for each in files]})
        if call:
            return self._send(
                [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in files.items()
                ]
            )
        if found[3] not in files:
            return self._send({"error": "Entry not found"}, 404, code="EntryNotFound")
        content = files[found[3]]
        return self._send(content, headers={"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _send(self, content: Any, status: int = 200, *, code: str = "", headers: Any = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), **({"X-Error-Code": code} if code else {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()
