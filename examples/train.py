"""Train a reranker on your own queries and documents from Python, in five lines.

    pip install 'prorank[train]'
    python examples/train.py my_folder                  # a BEIR folder, JSON lines, irds:ID, or stdlib
    python examples/train.py my_folder runs/mine

A fifth of the queries is kept for the test. Run it again to resume after an interruption. Every setting is a field of
`TrainRun`: `TrainRun(data=..., warmup=WarmupConfig(steps=300), refine=RefineConfig(list_size=16))`.
"""

import sys

from prorank import Reranker, TrainRun, train

trained = train(TrainRun(data=sys.argv[1], out=sys.argv[2] if len(sys.argv) > 2 else "runs/mine"))
print(trained.report)
print(Reranker.from_pretrained(trained.model).rank("a query of yours", ["a passage", "another one"]))
