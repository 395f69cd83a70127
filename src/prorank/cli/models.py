"""List the models that prorank knows by name, the template presets, and the contents of the cache.

prorank models
prorank models --format jsonl
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``prorank models``."""
    parser.add_argument(
        "--format", choices=("table", "jsonl"), help="output format (default: table on a terminal, else jsonl)"
    )


def run(args: argparse.Namespace) -> int:
    """Print one row per model, preset or cached base."""
    rows = list(_rows())
    if (args.format or ("table" if sys.stdout.isatty() else "jsonl")) == "jsonl":
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("kind", "name", "what it is", "size", "licence", "state"):
        table.add_column(name, no_wrap=name in ("kind", "size", "licence"))
    for row in rows:
        table.add_row(*(str(row[key] or "") for key in ("kind", "name", "summary", "size", "licence", "state")))
    console = Console()
    console.print(table, width=max(console.width, 100))
    return 0


def _rows() -> list[dict[str, Any]]:
    from prorank.model.base import BUILT_IN, cached_bases
    from prorank.model.checkpoint import built_in_rerankers, read_manifest
    from prorank.prompt.presets import PRESETS
    from prorank.reranker import default_model

    cached = dict(cached_bases())
    rows: list[dict[str, Any]] = []
    for name, folder in built_in_rerankers().items():
        manifest = read_manifest(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        summary = f"reranker: {manifest.stage} adapter on {manifest.base_name}" if manifest else "reranker"
        state = "default" if name == default_model() else "in the package"
        rows.append(_row("reranker", name, summary, size, "Apache-2.0", state))
    for spec in BUILT_IN.values():
        folder_name = f"{spec.name}-{spec.sha256[:12]}"
        summary = f"{spec.summary}, {spec.parameters / 1e6:.0f}M parameters"
        state = "in the cache" if folder_name in cached else "not fetched yet"
        if spec.name == default_model():
            state += ", default"
        rows.append(_row("base", spec.name, summary, spec.download_bytes, spec.licence, state))
    for name, size in cached.items():
        rows.append(_row("cache", name, "float32 weights, unpacked from GGUF", size, "", "in the cache"))
    for template in PRESETS.values():
        words = " / ".join(template.label_words)
        rows.append(_row("template", template.name, f"answers {words}", None, "", "preset"))
    return rows


def _row(kind: str, name: str, summary: str, size: int | None, licence: str, state: str) -> dict[str, Any]:
    shown = f"{size / 1e6:.0f} MB" if size else None
    return {"kind": kind, "name": name, "summary": summary, "size": shown, "licence": licence, "state": state}
