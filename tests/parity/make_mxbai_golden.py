"""Make ``mxbai_golden.json``: margins of the public ``mxbai-rerank`` package on the built-in base's weights.

That package breaks on transformers 5, so it runs in a virtual environment of its own:

  python3 -m venv .venvs/mxbai && .venvs/mxbai/bin/pip install torch==2.13.0 "transformers<5" mxbai-rerank==0.1.6
  .venvs/mxbai/bin/python tests/parity/make_mxbai_golden.py BASE_FOLDER

BASE_FOLDER is the unpacked built-in base (``prorank models`` names it).
Each case runs alone: a batch of one, no padding.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

CASES_MAX_LENGTH = 160  # small, so that the limits are reached by short texts

INSTRUCTION = "Rank passages of a medical handbook. Prefer plain words."
QUERIES = {
    "plain": "how do vaccines create immunity?",
    "unicode": "Wie wirkt Impfung \u2013 \u514d\u75ab\u529b \U0001f489?",
    "empty": "",
    "long": "immunity " * 200,
    "at the limit": "word " * 117,  # with "query: " about three quarters of the limit
}
DOCUMENTS = {
    "plain": "A vaccine shows the immune system a harmless piece of a germ.",
    "unicode": "Gr\u00fc\u00dfe, \u6f22\u5b57, \U0001f642 and a\nline break\n\nor two.\tTab.",
    "empty": "",
    "spaces": "   leading and trailing   ",
    "digits": "1 0 1 0 12345",
    "long": "the immune system learns to recognise germs " * 60,
    "at the limit": "germ " * 145,
}


def prepared(base: Path, scratch: Path) -> Path:
    """A copy in the words of transformers 4: its tokenizer class, and the rotary base at the top level."""
    folder = scratch / "base"
    shutil.copytree(base, folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config), "utf-8")
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(config), "utf-8")
    return folder


def main() -> None:
    import torch
    import transformers
    from mxbai_rerank import MxbaiRerankV2

    with tempfile.TemporaryDirectory() as scratch:
        model = MxbaiRerankV2(
            str(prepared(Path(sys.argv[1]), Path(scratch))),
            device="cpu",
            torch_dtype=torch.float32,
            max_length=CASES_MAX_LENGTH,
        )
    rows = []
    for query_name, query in QUERIES.items():
        for document_name, document in DOCUMENTS.items():
            for instruction in (None, INSTRUCTION):
                inputs = model.prepare_inputs([query], [document], instruction=instruction)
                ids = [
                    i
                    for i, keep in zip(
                        inputs["input_ids"][0].tolist(), inputs["attention_mask"][0].tolist(), strict=True
                    )
                    if keep
                ]
                margin = float(model.predict([query], [document], instruction=instruction)[0])
                rows.append(
                    {
                        "query": query_name,
                        "document": document_name,
                        "instruction": instruction,
                        "tokens": len(ids),
                        "ids_sum": sum((i + 1) * (at + 1) for at, i in enumerate(ids)),
                        "margin": margin,
                    }
                )
    golden = {
        "package": "mxbai-rerank 0.1.6",
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "max_length": model.max_length,
        "predefined_length": model.predefined_length,
        "queries": QUERIES,
        "documents": DOCUMENTS,
        "rows": rows,
    }
    Path(__file__).with_name("mxbai_golden.json").write_text(json.dumps(golden, indent=1) + "\n", "utf-8")
    print(f"{len(rows)} rows, margins {min(r['margin'] for r in rows):.3f} to {max(r['margin'] for r in rows):.3f}")


if __name__ == "__main__":
    main()
