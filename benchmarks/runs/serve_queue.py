"""What the server's queue alone costs: the same requests through ``Reranker.score_groups`` and through the batcher.

    python -m benchmarks.runs.serve_queue [MODEL]

Both in one process and in turn, so that whatever else the machine does falls on both. Prints tokens a second.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable

from prorank.data.stdlib import load_stdlib
from prorank.reranker import Reranker
from prorank.serve.batcher import Batcher, tokens_of

REQUESTS, DOCUMENTS, ROUNDS = 8, 5, 2


def main() -> None:
    reranker = Reranker.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m")
    batcher = Batcher(reranker)
    collection = load_stdlib("test")
    choose = random.Random(7)
    texts = [document.content for document in collection.documents.values()]
    queries = [query.text for query in choose.sample(list(collection.queries.values()), REQUESTS)]
    requests = [reranker.encode(query, choose.sample(texts, DOCUMENTS)) for query in queries]
    tokens = sum(map(tokens_of, requests))

    def library() -> None:
        for one in requests:
            reranker.score_groups([one])

    def queue() -> None:
        for future in [batcher.submit([one]) for one in requests]:
            future.result()

    def speed(work: Callable[[], None]) -> float:
        started = time.perf_counter()
        work()
        return tokens / (time.perf_counter() - started)

    library()  # warm
    for _ in range(ROUNDS):
        print(f"library {speed(library):6.0f} tokens/s   queue {speed(queue):6.0f} tokens/s", flush=True)
    print(f"library {speed(library):6.0f} tokens/s")


if __name__ == "__main__":
    main()
