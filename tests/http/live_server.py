"""A real server for tests and the browser."""

from __future__ import annotations

import threading
import time

import httpx

from prorank.serve.app import ServeApp
from prorank.serve.server import make_server


class Live:
    """A server on a loopback port, in a thread of this process."""

    def __init__(self, app: ServeApp) -> None:
        self.app = app
        self.server = make_server(app, port=0)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        deadline = time.monotonic() + 20
        while not self.server.started:
            assert self.thread.is_alive(), "the server ended at its start"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        while httpx.get(f"{self.url}/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(15)
        assert not self.thread.is_alive(), "the server did not stop"
