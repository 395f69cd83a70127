"""The tables of a recipe as what training takes: ``[[datasets]]`` and ``[[blocks]]``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from prorank.config import build_config
from prorank.pipeline.datasets import DatasetSpec
from prorank.pipeline.train import BLOCK_KEYS, Block
from prorank.training.refine.config import RefineConfig

__all__ = ["read_blocks", "read_specs"]

_COMMON = ("split", "first_stage", "teacher", "instruction", "own_documents")
"""Flags for what a table leaves open."""


def read_specs(args: argparse.Namespace, file: Mapping[str, Any]) -> tuple[DatasetSpec, ...]:
    """Specs of ``--data`` flags, or else of the ``[[datasets]]`` tables, or else of ``data`` in a configuration file.

    Raises:
        ValueError: none is named, or a table has an unknown or missing field.
    """
    tables: list[Any] = [{"path": path} for path in args.data or ()]
    if not tables:
        listed = file.get("datasets") or file.get("data") or []
        tables = [{"path": listed}] if isinstance(listed, str) else list(listed)
    if not tables:
        raise ValueError("--data is missing: give it here, or [[datasets]] in --config")
    given = {name: file.get(name) if getattr(args, name) is None else getattr(args, name) for name in _COMMON}
    common = {name: value for name, value in given.items() if value is not None}
    known = {field.name for field in fields(DatasetSpec)}
    specs = []
    for number, entry in enumerate(tables, 1):
        table = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(table, Mapping) or not isinstance(table.get("path"), str):
            raise ValueError(f"[[datasets]] number {number}: 'path' is missing")
        unknown = [name for name in table if name not in known]
        if unknown:
            raise ValueError(
                f"[[datasets]] number {number}: {unknown[0]!r} is not a field (known: {', '.join(sorted(known))})"
            )
        specs.append(DatasetSpec(**{**common, **table}))
    return tuple(specs)


def read_blocks(file: Mapping[str, Any], flags: Mapping[str, str]) -> tuple[Block, ...]:
    """The ``[[blocks]]``: the settings of each are ``[refine]``'s, then its own, then the flags'.

    Raises:
        ValueError: a setting is unknown or out of range.
    """
    blocks = []
    for number, table in enumerate(file.get("blocks", ()), 1):
        own = {key: value for key, value in table.items() if key not in BLOCK_KEYS}
        settings = build_config(RefineConfig, "refine", {"refine": {**file.get("refine", {}), **own}}, flags)
        try:
            blocks.append(
                Block(str(table.get("name", number)), settings, table.get("remine", 0), table.get("checkpoint", "best"))
            )
        except ValueError as error:
            raise ValueError(f"[[blocks]] number {number}: {error}") from None
    return tuple(blocks)
