"""One collection, written in another form: BEIR folder, TREC folder, JSON-lines lists."""

from __future__ import annotations

from pathlib import Path

from prorank.data.beir import write_beir
from prorank.data.collection import Collection
from prorank.data.jsonl import write_jsonl
from prorank.data.trec import write_run, write_trec

__all__ = ["FORMATS", "check_target", "convert"]

FORMATS = ("beir", "trec", "jsonl")


def convert(collection: Collection, target: Path, form: str) -> None:
    """Write ``collection`` to ``target``: a new or empty folder for ``beir`` and ``trec``, a file for ``jsonl``.

    Raises:
        ValueError: the form is unknown, the target is in the way, or an id cannot be carried by TREC files.
    """
    check_target(target, form)
    if form == "jsonl":
        write_jsonl(collection, target)
        return
    if form == "trec":
        write_trec(collection, target)
        return
    write_beir(collection, target)
    if collection.candidates:
        write_run(target / "runs" / f"given.{collection.split or 'test'}.trec", collection.candidates, "given")


def check_target(target: Path, form: str) -> None:
    """Whether :func:`convert` may write there.

    Raises:
        ValueError: the form is unknown, or the target is in the way.
    """
    if form not in FORMATS:
        raise ValueError(f"to: expected one of {', '.join(FORMATS)}, got {form!r}")
    if form == "jsonl":
        if target.is_dir():
            raise ValueError(f"out: {target} is a folder; jsonl needs a file name")
    elif target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out: {target} exists and is not an empty folder")
