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
    from prorank.cache import cache_dir
    from prorank.data.encoders import ENCODERS
    from prorank.model.base import BUILT_IN, cached_bases
    from prorank.model.checkpoint import built_in_rerankers
    from prorank.model.int8_cache import cached_int8
    from prorank.model.manifest import read_manifest
    from prorank.prompt.presets import PRESETS
    from prorank.published.fetch import cached_folder, is_installed
    from prorank.reranker import default_model

    cached = dict(cached_bases())
    rows: list[dict[str, Any]] = []
    for name, folder in built_in_rerankers().items():
        manifest = read_manifest(folder)
        size = sum(file.stat().st_size for file in folder.iterdir())
        summary = f"reranker: {manifest.stage} adapter on {manifest.base_name}" if manifest else "reranker"
        state = "default" if name == default_model() else "in the package"
        rows.append(_row("reranker", name, summary, size, "Apache-2.0", state))
    rows.append(_row("engine", "native", "our own, int8 on the CPU", None, "", _native_state()))
    for spec in BUILT_IN.values():
        folder_name = f"{spec.name}-{spec.sha256[:12]}"
        summary = f"{spec.summary}, {spec.parameters / 1e6:.0f}M parameters"
        here = folder_name in cached or cache_dir("bases", spec.file).is_file()
        state = "in the cache" if here else "not fetched yet"
        if spec.name == default_model():
            state += ", default"
        rows.append(_row("base", spec.name, summary, spec.download_bytes, spec.licence, state))
    for row in ENCODERS.values():
        summary = f"{row.summary}, {row.parameters / 1e6:.0f}M parameters"
        state = (
            "in the cache" if cached_folder(row).is_dir() else "installed" if is_installed(row) else "not fetched yet"
        )
        rows.append(_row(row.kind, row.name, summary, row.download_bytes, row.licence, state))
    for name, size in cached.items():
        rows.append(_row("cache", name, "a base's checkpoint, from GGUF", size, "", "in the cache"))
    for name, size in cached_int8():
        rows.append(_row("cache", name, "int8 weights for our own engine", size, "", "in the cache"))
    for template in PRESETS.values():
        words = " / ".join(template.label_words)
        rows.append(_row("template", template.name, f"answers {words}", None, "", "preset"))
    return rows


def _native_state() -> str:
    """Whether the built-in rerankers run on our own engine here."""
    from prorank.model.default_engine import why_not

    reason = why_not()
    return "runs the built-in rerankers" if reason is None else f"cannot run here: {reason}"


def _row(kind: str, name: str, summary: str, size: int | None, licence: str, state: str) -> dict[str, Any]:
    shown = f"{size / 1e6:.0f} MB" if size else None
    return {"kind": kind, "name": name, "summary": summary, "size": shown, "licence": licence, "state": state}
