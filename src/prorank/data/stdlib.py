"""The built-in collection: docstrings of the user's own Python standard library, so that everything works offline.

A docstring's first sentence is the query; qualified name, signature and the rest of the docstring are the relevant
document. The sources are parsed, never imported (importing some modules opens a browser or prints a poem); a few
modules written in C are read by introspection. Splits are by top-level module, so that no module is seen in two; a
first sentence that occurs in modules of two splits is no query at all. The result depends on the interpreter's
version alone.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from prorank.data.collection import Collection, pick_split
from prorank.types import Document, Query

__all__ = ["SPLITS", "load_stdlib"]

SPLITS = ("dev", "test", "train")
"""By the CRC of the top-level module's name: train 8 of 10, dev and test 1 each."""

_LEFT_OUT = {
    "antigravity",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "msilib",
    "pydoc_data",
    "test",
    "this",
    "tkinter",
    "turtledemo",
}
_WRITTEN_IN_C = ("array", "builtins", "cmath", "gc", "itertools", "math", "time", "zlib")
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_MIN_QUERY_WORDS, _MIN_REST_WORDS = 4, 8


class _Entry(NamedTuple):
    name: str
    signature: str
    docstring: str


def load_stdlib(split: str | None = None) -> Collection:
    """The standard library of the running interpreter as a collection.

    Args:
        split: ``train``, ``dev`` or ``test``; the documents are the same in all three.

    Raises:
        ValueError: another split, or none, is named.
    """
    chosen = pick_split("stdlib", list(SPLITS), split)
    documents: dict[str, Document] = {}
    answers: dict[str, list[str]] = {}
    for entry in _entries():
        sentence, rest = _first_sentence(entry.docstring)
        if entry.name in documents or len(rest.split()) < _MIN_REST_WORDS:
            continue
        documents[entry.name] = Document(entry.name, rest, entry.name + entry.signature)
        if len(sentence.split()) >= _MIN_QUERY_WORDS:
            answers.setdefault(sentence, []).append(entry.name)
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, int]] = {}
    for number, (sentence, names) in enumerate(answers.items()):
        if {_split_of(name) for name in names} == {chosen}:
            query_id = f"stdlib-{number}"
            queries[query_id] = Query(query_id, sentence)
            qrels[query_id] = dict.fromkeys(names, 1)
    version = ".".join(map(str, sys.version_info[:3]))
    return Collection(f"stdlib-{version}", documents, queries, qrels, chosen)


def _split_of(qualified_name: str) -> str:
    bucket = zlib.crc32(qualified_name.partition(".")[0].encode()) % 10
    return {0: "test", 1: "dev"}.get(bucket, "train")


def _first_sentence(docstring: str) -> tuple[str, str]:
    """(first sentence on one line, the rest); a sentence ends at a full stop before white space, or a blank line."""
    match = re.search(r"\.(?=\s)|\n\s*\n|\.$", docstring)
    if match is None:
        return " ".join(docstring.split()), ""
    end = match.end() if match[0].startswith(".") else match.start()
    return " ".join(docstring[:end].split()), docstring[end:].strip()


@lru_cache(maxsize=1)
def _entries() -> tuple[_Entry, ...]:
    return tuple(_read_all())


def _read_all() -> Iterator[_Entry]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        if name.startswith("_"):
            continue
        if name in _WRITTEN_IN_C:
            yield from _introspected(name)
        elif (root / f"{name}.py").is_file():
            yield from _parsed(root / f"{name}.py", name)
        elif (root / name / "__init__.py").is_file():
            for path in sorted((root / name).rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                if not {"test", "tests", "__main__"} & set(parts):
                    yield from _parsed(path, ".".join(p for p in parts if p != "__init__"))


def _parsed(path: Path, module: str) -> Iterator[_Entry]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # a broken or unreadable file of the user's interpreter is no reason to fail
    yield from _walk(tree, module)


def _walk(node: Any, name: str) -> Iterator[_Entry]:
    docstring = ast.get_docstring(node)
    if docstring:
        yield _Entry(name, _signature(node), docstring)
    for child in node.body:
        is_public = isinstance(child, (*_FUNCTION, ast.ClassDef)) and not child.name.startswith("_")
        if is_public and not isinstance(node, _FUNCTION):
            yield from _walk(child, f"{name}.{child.name}")


def _signature(node: Any) -> str:
    if isinstance(node, _FUNCTION):
        return f"({ast.unparse(node.args)})"
    return ""


def _introspected(module: str) -> Iterator[_Entry]:
    try:
        found = importlib.import_module(module)
    except ImportError:
        return  # not built into this interpreter
    for name, value in sorted(vars(found).items()):
        if name.startswith("_") or not (inspect.isbuiltin(value) or inspect.isclass(value)):
            continue  # what a running program put there (hooks, site's quit) would differ from process to process
        yield from _described(f"{module}.{name}", value)
        if inspect.isclass(value) and value.__module__ == module:
            for attribute, member in sorted(vars(value).items()):
                if not attribute.startswith("_") and callable(member):
                    yield from _described(f"{module}.{name}.{attribute}", member)


def _described(name: str, value: Any) -> Iterator[_Entry]:
    docstring = inspect.getdoc(value)
    if isinstance(docstring, str) and docstring.strip():
        yield _Entry(name, getattr(value, "__text_signature__", None) or "", docstring)
