"""A client of the server with the library's own shapes: ``Client(url).rank(...)`` answers what ``Reranker.rank`` does.

Needs only httpx (extra ``client``). Requests that the server refuses because it is busy (429, 503), and connections
that cannot be made, are tried again with growing pauses; the server's ``Retry-After`` is respected.

    with Client("http://127.0.0.1:8080") as client:
        for result in client.rank("what is a margin?", ["a margin is ...", "..."], top_k=3):
            print(result.index, result.margin, result.text)
"""

from __future__ import annotations

from prorank.client.asynchronous import AsyncClient
from prorank.client.blocking import Client
from prorank.client.requests import ServerError

__all__ = ["AsyncClient", "Client", "ServerError"]
