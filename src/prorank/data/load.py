"""Load a collection by its path or name: the one place that knows every reader."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from prorank.data import beir, irds, jsonl, stdlib, trec
from prorank.data.collection import Collection, OwnDocuments

__all__ = ["load_collection", "splits_of", "there", "training_split"]


def load_collection(
    path_or_name: str | Path, split: str | None = None, *, own_documents: OwnDocuments | None = None
) -> Collection:
    """Load a collection, whatever its form.

    Args:
        path_or_name: a BEIR folder (``corpus.jsonl``), a TREC folder (``collection.tsv``), a JSON-lines file of
            triples or lists, ``irds:ID`` for an `ir_datasets` id, or ``stdlib`` for the built-in one. A relative path
            that does not exist here is looked for in the folder that ``PRORANK_DATA`` names.
        split: which judgments; may be left out where there is only one.
        own_documents: whether the document with a query's own id may be its candidate (``keep``), or is left out of
            candidates, negatives and measures (``drop``). None: left out of BEIR's collections (BEIR folders and
            ``irds:beir/...``), as BEIR's own evaluation does, and kept elsewhere.

    Raises:
        ValueError: nothing there is known, a line is malformed (``file:line: reason``), or the split does not exist.
        ImportError: ``irds:`` without `ir_datasets`; says what to install.
    """
    if own_documents not in (None, "keep", "drop"):
        raise ValueError(f"own-documents: expected keep or drop, got {own_documents!r}")
    collection = _load(path_or_name, split)
    name, path = str(path_or_name), _found(path_or_name)
    as_beir = name.startswith("irds:beir/") or (path.is_dir() and beir.is_beir(path))
    return replace(collection, keeps_own=(own_documents or ("drop" if as_beir else "keep")) == "keep")


def _load(path_or_name: str | Path, split: str | None) -> Collection:
    name = str(path_or_name)
    if name == "stdlib":
        return stdlib.load_stdlib(split)
    if name.startswith("irds:"):
        return irds.load_irds(name.removeprefix("irds:"), split)
    path = there(path_or_name)
    if path.is_dir():
        if beir.is_beir(path):
            return beir.load_beir(path, split)
        if trec.is_trec(path):
            return trec.load_trec(path, split)
        raise ValueError(
            f"data: {path} is neither a BEIR folder (corpus.jsonl and queries.jsonl, plain or .gz) nor a TREC folder "
            "(collection.tsv and topics.tsv)"
        )
    return jsonl.load_jsonl(path, split)


def there(path_or_name: str | Path) -> Path:
    """The folder or file that a path means; it may lie in ``PRORANK_DATA``.

    Raises:
        ValueError: there is none.
    """
    path = _found(path_or_name)
    if path.is_dir() or path.is_file():
        return path
    name, folder = str(path_or_name), os.environ.get("PRORANK_DATA")
    also = (
        f", nor found in PRORANK_DATA ({folder})" if folder else "; PRORANK_DATA, a folder of collections, is not set"
    )
    raise ValueError(f"data: {name!r} is not a file, a folder, 'stdlib' or 'irds:ID'{also}")


def splits_of(path_or_name: str | Path) -> list[str | None]:
    """The names of a collection's splits; ``[None]`` where it has none of its own (or they cannot be listed)."""
    if str(path_or_name) == "stdlib":
        return list(stdlib.SPLITS)
    path = _found(path_or_name)
    if path.is_dir() and beir.is_beir(path):
        return list(beir.splits(path)) or [None]
    if path.is_dir() and trec.is_trec(path):
        return list(trec.splits(path)) or [None]
    return [None]


def training_split(path_or_name: str | Path, split: str | None = None) -> str | None:
    """The split to train on: the one named, else ``train`` where there is one, else None (the only one)."""
    return split or ("train" if "train" in splits_of(path_or_name) else None)


def _found(path_or_name: str | Path) -> Path:
    """The path itself, or else the one in ``PRORANK_DATA`` where that exists."""
    path, folder = Path(path_or_name).expanduser(), os.environ.get("PRORANK_DATA")
    if not path.exists() and folder and (inside := Path(folder).expanduser() / path).exists():
        return inside
    return path
