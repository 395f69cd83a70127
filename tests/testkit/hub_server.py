"""A stand-in for the Hugging Face hub's HTTP API, on a real socket: repositories, commits, files, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_test"


class HubServer:
    """Takes commits of files that are sent within them, and gives the files back.

    Args:
        token: whoever has it may write.
    """

    def __init__(self, token: str = TOKEN) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.messages: list[str] = []
        self.cards: list[str] = []
        """Model cards that a client had checked."""
        self.requests: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                self.answer(body if "chunked" not in self.headers.get("transfer-encoding", "") else self.chunked())

            def do_GET(self) -> None:
                self.answer(b"")

            do_HEAD = do_GET  # noqa: N815

            def chunked(self) -> bytes:
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def answer(self, body: bytes) -> None:
                outer.requests.append((self.command, self.path))
                if self.command == "POST" and self.headers.get("authorization") != f"Bearer {token}":
                    self.reply(401, b'{"error": "Invalid credentials."}')
                    return
                self.reply(*outer.handle(self.command, self.path, body))

            def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, method: str, address: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts = unquote(urlsplit(address).path).strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = "/".join(filter(None, [wanted.get("organization") or "me", wanted["name"]]))
            if name in self.repositories:
                return self.said(409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"})
            self.repositories[name] = {}
            self.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
            return self.said(200, {"url": f"{self.url}/{name}", "name": name, "id": name})
        if parts == ["api", "validate-yaml"]:  # asked before a README.md is committed
            self.cards.append(json.loads(body)["content"])
            return self.said(200, {"errors": [], "warnings": []})
        if parts[0] == "api" and parts[1] == "models":
            return self.model("/".join(parts[2:4]), parts[4:], body)
        if len(parts) >= 5 and parts[2] == "resolve":
            return self.file("/".join(parts[:2]), "/".join(parts[4:]))
        return self.said(404, {"error": f"{method} {address} {parse_qs(urlsplit(address).query)}"})

    def model(self, name: str, what: list[str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        files = self.repositories.get(name)
        if files is None:
            return self.said(404, {"error": "Repository not found"}, {"x-error-code": "RepoNotFound"})
        if what[:1] == ["preupload"]:
            asked = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            return self.said(200, {"files": modes})
        if what[:1] == ["commit"]:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "header":
                    self.messages.append(entry["value"]["summary"])
                else:
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            sha = self.commit(name)
            return self.said(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{name}/commit/{sha}"})
        if what[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)} for path, data in files.items()
            ]
            return self.said(200, tree)
        rows = [{"rfilename": path} for path in files]
        return self.said(200, {"id": name, "modelId": name, "sha": self.commit(name), "siblings": rows, "tags": []})

    def file(self, name: str, path: str) -> tuple[int, bytes, dict[str, str]]:
        if name not in self.repositories:
            return self.said(404, {"error": "Repository not found"}, {"x-error-code": "RepoNotFound"})
        data = self.repositories[name].get(path)
        commit = {"x-repo-commit": self.commit(name)}
        if data is None:
            return self.said(404, {"error": "Entry not found"}, {"x-error-code": "EntryNotFound", **commit})
        return 200, data, {"etag": f'"{_sha1(data)}"', "content-type": "application/octet-stream", **commit}

    def commit(self, name: str) -> str:
        files = self.repositories[name]
        return _sha1(b"".join(path.encode() + data for path, data in sorted(files.items())))

    @staticmethod
    def said(status: int, data: Any, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
        return status, json.dumps(data).encode(), {"content-type": "application/json", **(headers or {})}


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
