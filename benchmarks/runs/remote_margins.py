"""Margins from someone else's server beside our own in float32, on the same pairs: vLLM over a seq-cls export.

    prorank export --to seq-cls --out runs/seq-cls
    vllm serve runs/seq-cls --served-model-name mine --runner pooling --dtype float32 --max-model-len 512
    python -m benchmarks.runs.remote_margins --model runs/seq-cls --backend remote:mine@http://127.0.0.1:8000/classify

Prints a line, and one JSON line last (--append keeps it); wanted: no margin more than 1e-3 apart. It measures no speed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.runs.turns import ended


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the folder that the server runs")
    parser.add_argument("--backend", required=True, help="remote:MODEL@URL")
    parser.add_argument("--queries", type=int, default=6, help="with 20 documents each")
    parser.add_argument("--append", type=Path, help="JSON lines file")
    args = parser.parse_args()

    from prorank import Reranker
    from prorank.export.parity import compare, parity_texts

    try:
        ours = Reranker.from_pretrained(args.model)
        theirs = Reranker.from_pretrained(args.model, backend=args.backend)
        found = compare(ours, theirs, parity_texts(args.queries))
    except (ValueError, RuntimeError, ImportError) as error:
        print(f"remote_margins: error: {error}", file=sys.stderr)
        return 2
    print(f"{found.pairs} pairs: largest difference {found.max_difference:.2e}, tau {found.kendall_tau:.4f}")
    verdict = {"within 1e-3": found.max_difference <= 1e-3}
    return ended(
        {"benchmark": "remote_margins", "backend": args.backend, **asdict(found), "verdict": verdict}, args.append
    )


if __name__ == "__main__":
    sys.exit(main())
