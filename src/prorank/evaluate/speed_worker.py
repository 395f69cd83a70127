"""The process that ``speed.measure_speed`` times: reads one JSON task, loads, scores, answers with one JSON line."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> int:
    """Exit code 2 and one line on standard error where the model cannot be loaded."""
    task = json.load(sys.stdin)
    started = time.perf_counter()
    from prorank.evaluate.speed import timed
    from prorank.reranker import Reranker

    try:
        reranker = Reranker.from_pretrained(**task["options"])
    except (ValueError, OSError, ImportError) as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 2
    jobs = [(query, documents) for query, documents in task["jobs"]]
    reranker.margins(jobs[0][0], jobs[0][1][:1])
    loaded = time.perf_counter() - started
    timed(reranker.margins, jobs, 1)  # what is prepared for a shape is not counted
    seconds = timed(reranker.margins, jobs, task["repeats"])
    groups = [reranker.encode(query, documents).group for query, documents in jobs]
    answer = {
        "name": reranker.name,
        "backend": reranker.backend.name,
        "load_seconds": loaded,
        "seconds": seconds,
        "lengths": [(len(g.prefix_ids), [len(ids) for ids in g.own_ids]) for g in groups],
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "config": _config(reranker, task["options"].get("model")),
    }
    print(json.dumps(answer), flush=True)
    return 0


def _config(reranker: Any, model: str | None) -> dict[str, Any] | None:
    """The architecture's sizes: the loaded model's, or the exported folder's ``config.json``."""
    capabilities = reranker.backend.capabilities
    if capabilities.holds_model:
        found: dict[str, Any] = reranker.backend.model.config.get_text_config().to_dict()
    elif (folder := capabilities.folder or model) and (Path(folder) / "config.json").is_file():
        found = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        found = found.get("text_config", found)
    else:
        return None
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {k: v for k, v in found.items() if isinstance(v, int)} if all(s in found for s in sizes) else None


if __name__ == "__main__":
    sys.exit(main())
