"""Configuration: a TOML or YAML file plus dotted command-line overrides -> a frozen dataclass.

It knows no stage: any dataclass whose fields are plain types will do. The attribute docstrings of the dataclass are
the only help text. `jsonargparse` checks and converts the values; errors name the flag.

    add_config_arguments(parser, WarmupConfig, "warmup")          # --warmup.group_size 16, one flag a field
    config = build_config(WarmupConfig, "warmup", read_config(path), overrides(args, "warmup"))
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import inspect
import itertools
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "add_config_arguments",
    "attribute_docs",
    "build_config",
    "checked",
    "config_dict",
    "first_difference",
    "overrides",
    "read_config",
]

T = TypeVar("T")


def read_config(path: str | Path) -> dict[str, Any]:
    """The content of a ``.toml``, ``.yaml`` or ``.yml`` file.

    Raises:
        ValueError: no such file, another ending, or malformed content.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--config {path}: no such file")
    try:
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(path.read_text("utf-8"))
        if path.suffix in (".yaml", ".yml"):
            import yaml

            data = yaml.safe_load(path.read_text("utf-8")) or {}
            if not isinstance(data, dict):
                raise ValueError("expected a mapping at the top")
            return data
    except Exception as error:  # tomllib and yaml each raise their own kind
        raise ValueError(f"--config {path}: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    raise ValueError(f"--config {path}: expected a .toml, .yaml or .yml file")


def add_config_arguments(parser: argparse.ArgumentParser, cls: type, section: str) -> None:
    """One flag ``--SECTION.FIELD`` for each field of the dataclass; values stay text until :func:`build_config`."""
    group = parser.add_argument_group(f"{section} settings (also in the [{section}] table of --config)")
    help_texts = attribute_docs(cls)
    for field in dataclasses.fields(cls):
        default = "" if field.default is dataclasses.MISSING else f" (default: {field.default})"
        text = (help_texts.get(field.name, "") + default).replace("%", "%%")
        group.add_argument(f"--{section}.{field.name}", metavar="X", default=None, help=text)


def overrides(args: argparse.Namespace, section: str) -> dict[str, str]:
    """What the command line set of a section: field -> text."""
    start = f"{section}."
    return {
        name.removeprefix(start): value
        for name, value in vars(args).items()
        if name.startswith(start) and value is not None
    }


def build_config(
    cls: type[T], section: str, file: Mapping[str, Any] | None = None, given: Mapping[str, Any] | None = None
) -> T:
    """The dataclass from its defaults, then the file's ``[section]`` table, then the overrides.

    Args:
        file: the whole content of a configuration file; other sections are not looked at.
        given: field -> value, or its text as on a command line.

    Raises:
        ValueError: an unknown field or a value of the wrong kind; the message names the flag.
    """
    table = (file or {}).get(section, {})
    if not isinstance(table, Mapping):
        raise ValueError(f"[{section}]: expected a table, got {type(table).__name__}")
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {**table, **(given or {})}
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"; did you mean --{section}.{close[0]}?" if close else ""
            raise ValueError(f"--{section}.{name}: no such setting{hint}")
    kinds = typing.get_type_hints(cls)
    parsed: dict[str, Any] = {}
    for name, value in values.items():
        meant = value if value in typing.get_args(kinds[name]) else _literal(value)  # "none" may be a word of its own
        parsed[name] = checked(kinds[name], meant, f"--{section}.{name}", shown=value)
    try:
        return cls(**parsed)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith("--") else f"--{section}.{message}") from None


def checked(kind: Any, value: Any, name: str, *, shown: Any = None) -> Any:
    """The value as the type it should have (a list as a tuple, a whole number as a float).

    Args:
        kind: the type.
        name: what an error calls it.
        shown: the value as it was written, for the error.

    Raises:
        ValueError: it does not fit.
    """
    import jsonargparse

    members = typing.get_args(kind)
    if value is not None and type(None) in members:  # an error should speak of the other members alone
        kind = typing.Union[tuple(one for one in members if one is not type(None))]  # noqa: UP007
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        if value is None and type(None) not in members:
            raise ValueError(f"Expected a {kind}")
        return parser.parse_object({"value": value}).value
    except Exception as error:
        reason = " ".join(str(error).split()).rpartition("Expected a ")[2] or str(error)
        written = value if shown is None else shown
        raise ValueError(f"{name}: got {written!r}; expected {_readable(reason)}") from None


def config_dict(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON data (tuples become lists)."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(config).items()
    }


def first_difference(config: Any, saved: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first setting in which a configuration differs from a saved one: (name, saved value, value).

    A setting that the saved one does not know yet stood, as it were, at its default.
    """
    default = config_dict(type(config)())
    for name, value in config_dict(config).items():
        was = saved.get(name, default[name])
        if was != value:
            return name, was, value
    return None


def attribute_docs(cls: type) -> dict[str, str]:
    """Field -> the docstring that stands under it in the class, or in the dataclass it extends."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if dataclasses.is_dataclass(part):
            found |= _own_attribute_docs(part)
    return found


def _own_attribute_docs(cls: type) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    found = {}
    for statement, after in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[statement.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return found


def _readable(reason: str) -> str:
    """jsonargparse's words for a type in words for people."""
    kind = reason.split(". Got")[0].removeprefix("typing.")
    names = {
        "<class 'int'>": "a whole number", "<class 'float'>": "a number", "<class 'bool'>": "true or false",
        "<class 'str'>": "a text", "<class 'tuple'>": "a list",
    }  # fmt: skip
    if kind.startswith("Literal["):
        return "one of " + kind[8:].rstrip("]").replace("'", "")
    return names.get(kind, kind)


def _literal(value: Any) -> Any:
    """Text from a command line as the value it spells: ``16``, ``0.5``, ``true``, ``[a, b]``, ``none``."""
    if not isinstance(value, str):
        return value
    import yaml

    if value.lower() in ("none", "null"):
        return None
    try:
        return float(value) if _is_float(value) and not value.lstrip("+-").isdigit() else yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
