"""A stand-in for OpenSearch on a real socket: ``_bulk`` and ``_search`` with a match query, in its wire format.

The engine itself is Java and comes from no Python index. Documents are ordered by the query's words that they hold.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class SearchServer:
    """Indices by name -> documents by id, in ``indices``."""

    def __init__(self) -> None:
        self.indices: dict[str, dict[str, dict[str, Any]]] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                path = urlsplit(self.path).path
                answer = outer._bulk(body) if path == "/_bulk" else outer._search(path.split("/")[1], json.loads(body))
                data = json.dumps(answer).encode()
                self.send_response(200)
                for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(data)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _bulk(self, body: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in body.splitlines() if line]
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            index = self.indices.setdefault(action["index"]["_index"], {})
            found = action["index"].get("_id", str(len(index)))
            index[found] = source
            items.append({"index": {"_index": action["index"]["_index"], "_id": found, "status": 201}})
        return {"took": 1, "errors": False, "items": items}

    def _search(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        ((field, query),) = body["query"]["match"].items()
        asked = set(re.findall(r"\w+", query.lower()))
        hits = []
        for found, source in self.indices[name].items():
            score = len(asked & set(re.findall(r"\w+", source[field].lower())))
            if score:
                hits.append({"_index": name, "_id": found, "_score": float(score), "_source": source})
        hits.sort(key=lambda hit: -hit["_score"])
        total = {"value": len(hits), "relation": "eq"}
        return {"took": 1, "timed_out": False, "hits": {"total": total, "hits": hits[: body["size"]]}}
