"""Flags made from the fields of a dataclass, and the dataclass made from flags and a configuration file.

The attribute docstrings are the help texts. A field that is a dataclass itself (`warmup`, `refine`) is a section with
flags of its own, which `prorank.config` makes.

    add_field_flags(parser, RefineRun, skip=("refine",))
    run = from_flags(RefineRun, args, read_config(path), {"refine": config})
"""

from __future__ import annotations

import argparse
import collections.abc
import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from prorank.config import attribute_docs, checked

__all__ = ["add_field_flags", "add_own_documents", "from_flags", "given", "named_as_flag", "positive", "share"]

T = TypeVar("T")
Parser = argparse.ArgumentParser | argparse._ArgumentGroup

_METAVARS = {
    "adapter": "DIR", "address": "HOST:PORT", "corpus": "FILE", "data": "PATH", "exclude": "PATH[:SPLIT]",
    "first_stage": "SPEC", "instruction": "TEXT", "out": "DIR", "pair_cache": "WHERE", "queries": "FILE",
    "records": "FILE", "run": "FILE", "teacher": "SPEC", "test": "PATH[:SPLIT]",
}  # fmt: skip
"""What the help calls a text; NAME where none is given here."""


def positive(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def share(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and below 1, got {text!r}")
    return value


def add_field_flags(
    parser: Parser, cls: type, *, skip: Collection[str] = (), kinds: Mapping[str, Callable[[str], Any]] | None = None
) -> None:
    """One flag for each field; a flag that is not given stays None.

    Args:
        skip: fields without a flag.
        kinds: argparse types of fields that the rule does not suit (whole numbers are at least 1).
    """
    hints, texts = typing.get_type_hints(cls), attribute_docs(cls)
    needed_first = sorted(dataclasses.fields(cls), key=lambda field: field.default is not dataclasses.MISSING)
    for field in needed_first:
        if field.name in skip:
            continue
        how = _argument(field.name, hints[field.name])
        if kinds and field.name in kinds:
            how["type"] = kinds[field.name]
        parser.add_argument(f"--{field.name.replace('_', '-')}", help=_help(texts[field.name], field.default), **how)


def _argument(name: str, hint: Any) -> dict[str, Any]:
    """How argparse reads a field of this type."""
    parts = _parts(hint)
    choices = [word for part in parts for word in typing.get_args(part) if typing.get_origin(part) is typing.Literal]
    lists = (tuple, collections.abc.Sequence)
    items = next((typing.get_args(part)[0] for part in parts if typing.get_origin(part) in lists), None)
    if typing.get_origin(items) is typing.Literal:
        return {"nargs": "+", "choices": typing.get_args(items), "metavar": name.rpartition("_")[2].rstrip("s").upper()}
    if choices:
        return {"choices": choices}
    if items is not None:
        return {"action": "append", "metavar": _METAVARS.get(name, "NAME")}
    if int in parts:
        return {"type": positive, "metavar": "N"}
    if float in parts:
        return {"type": float, "metavar": "X"}
    return {"metavar": _METAVARS.get(name, "NAME")}


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _written(hint: Any) -> Any:
    """The type of a field in a file: a path is a text there."""
    parts = [part for part in _parts(hint) if typing.get_origin(part) is not os.PathLike]
    return typing.Union[tuple(parts)]  # noqa: UP007


def _help(text: str, default: Any) -> str:
    words = text.rstrip(".")
    words = words if words[1:2].isupper() else words[0].lower() + words[1:]
    if isinstance(default, str | int | float) and not isinstance(default, bool) and default != "":
        words += f" (default: {default})"
    return words.replace("%", "%%")


def add_own_documents(parser: argparse.ArgumentParser) -> None:
    """``--own-documents``, for commands that take a collection but are no training run."""
    from prorank.data.collection import OwnDocuments
    from prorank.pipeline.runs import TrainingRun

    text = attribute_docs(TrainingRun)["own_documents"]
    parser.add_argument("--own-documents", choices=typing.get_args(OwnDocuments), help=_help(text, None))


def given(cls: type, args: argparse.Namespace, *, skip: Collection[str] = ()) -> dict[str, Any]:
    """Field -> value of every flag that the command line has."""
    names = [field.name for field in dataclasses.fields(cls) if field.name not in skip]
    found = {name: getattr(args, name, None) for name in names}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items() if v is not None}


def from_flags(
    cls: type[T],
    args: argparse.Namespace,
    file: Mapping[str, Any],
    made: Mapping[str, Any],
    *,
    tables: Collection[str] = (),
    other_tables: bool = True,
) -> T:
    """The dataclass: each field from ``made``, else its flag, else the file's top level, else its default.

    Args:
        file: the content of the configuration file.
        made: fields that are no plain flags.
        tables: what else the command reads in the file.
        other_tables: let tables of other commands stand in the file.

    Raises:
        ValueError: the file has a key that is neither, a value of the wrong kind, or a field is missing.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key, value in file.items():
        if key not in (*fields, *tables) and not (other_tables and isinstance(value, dict)):
            known = ", ".join(name for name in fields if name not in tables)
            raise ValueError(f"--config {args.config}: {key!r} is not a setting (known: {known})")
    hints = typing.get_type_hints(cls)
    values = given(cls, args, skip=made)
    for name, value in file.items():
        if value is not None and name in fields and name not in made and name not in values:
            values[name] = checked(_written(hints[name]), value, f"--{name.replace('_', '-')}")
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and not (values.get(name) or name in made):
            raise ValueError(f"--{name.replace('_', '-')} is missing: give it here or in --config")
    return cls(**values, **made)


def named_as_flag(message: str, parser: argparse.ArgumentParser) -> str:
    """An error that opens with a field's name, opening with the flag that sets it.

    It does as ``test_share: ...``, or, of a flag that may be given several times, as ``test PATH: ...``.
    """
    found = re.match(r"([\w.]+)(: | \S+: )", message)
    if found is None:
        return message
    name, rest = found[1], message[found.end(1) :]
    for flag in (f"--{name}", f"--{name.replace('_', '-')}"):
        action = parser._option_string_actions.get(flag)
        if action is not None and (rest.startswith(":") or isinstance(action, argparse._AppendAction)):
            return flag + rest
    return message
