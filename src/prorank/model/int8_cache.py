"""Int8 models for our own engine, made without PyTorch when they are first asked for, and kept in the cache.

A folder's name holds the hash of all that its weights depend on: base, adapters, scales, label words, layout. One
process makes it, others wait; who reads sees a whole folder or none.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from prorank.backends.native.engine import FORMAT
from prorank.cache import cache_dir
from prorank.files import atomic_folder, folder_lock, recover_folder, sha256_file
from prorank.model import smoothing
from prorank.model.architecture import UnsupportedError
from prorank.model.base import unpacked, weights_sha256
from prorank.model.built_in import BUILT_IN, BaseError, BaseSpec, base_file, say
from prorank.model.checkpoint import check_base
from prorank.model.gguf_vocabulary import tokenizer_of
from prorank.model.hashes import known_sha256
from prorank.model.int8 import write_int8, write_labels
from prorank.model.lora import Merged, plain_pairs
from prorank.model.manifest import MANIFEST, Manifest, read_manifest, write_manifest
from prorank.model.weights import FolderWeights, GgufWeights, Weights

__all__ = ["Int8", "cached_int8", "int8_of"]

_RECORD = "made.json"
_BUILD = "1"
"""Raised where the same base and adapters are to give other numbers than before."""


class Int8(NamedTuple):
    """A model that is ready to run."""

    folder: Path
    """``native.safetensors``, ``labels.safetensors``, ``tokenizer.json`` and ``config.json``."""
    base_sha256: str
    positions: int | None
    """Most tokens of a prompt."""
    manifest: Manifest
    """Of the folder, which is an export like others."""


def int8_of(
    name: str, base_name: str, adapters: Sequence[Path], manifest: Manifest, *, local_files_only: bool = False
) -> Int8:
    """The model from the cache; made first where it is not there.

    Args:
        name: what people call it.
        base_name, adapters: of :func:`prorank.model.checkpoint.stack_of`.
        manifest: the checkpoint's; the rows of the output matrix for its ``label_ids`` come along.

    Raises:
        UnsupportedError: our engine does not know the architecture, or an adapter is more than plain LoRA.
        BaseError: something is missing or damaged, or the cache cannot be written to.
    """
    base = _Base(base_name, local_files_only)
    for adapter in adapters:
        check_base(adapter, read_manifest(adapter), base_name, base.sha256)
    parts = [FORMAT, _BUILD, base.sha256, repr(tuple(manifest.label_ids))]
    parts += [_adapter_sha256(adapter) for adapter in adapters]
    scales = adapters[-1] / smoothing.FILE if adapters else None  # they are for all that lies below, too
    if scales is None or not scales.is_file():
        scales = None
    else:
        parts.append(sha256_file(scales))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    folder = cache_dir("int8", f"{Path(name).stem}-{key[:12]}")
    recover_folder(folder)
    found = _whole(folder)
    if found is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with folder_lock(
                folder.with_name(f"{folder.name}.making"), lambda: say("another process makes it; waiting ...")
            ):
                found = _whole(folder, say) or _made(folder, name, base, adapters, scales, manifest)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the disk is full" if full else error.strerror or str(error)
            raise BaseError(
                f"the int8 model of {name} cannot be kept in the cache {folder.parent}: {reason}; PRORANK_CACHE names "
                "another folder"
            ) from error
    made = read_manifest(folder)
    assert made is not None
    return Int8(folder, base.sha256, found["positions"], made)


def cached_int8() -> list[tuple[str, int]]:
    """Folders of int8 models in the cache and their sizes in bytes."""
    root = cache_dir("int8")
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [
        (folder.name, sum(file.stat().st_size for file in folder.iterdir()))
        for folder in folders
        if (folder / _RECORD).is_file()
    ]


class _Base:
    """A base's files, found when they are asked for."""

    def __init__(self, name: str, local_files_only: bool) -> None:
        self._name, self._local_files_only = name, local_files_only
        self._spec: BaseSpec | None = BUILT_IN.get(name)
        self._path = Path(name).expanduser()
        if self._spec is not None:
            self.sha256 = self._spec.sha256
        elif self._path.is_dir():
            self.sha256 = weights_sha256(self._path)
        elif self._path.suffix == ".gguf" and self._path.is_file():
            self.sha256 = known_sha256(self._path)
        else:
            raise UnsupportedError(f"native runs built-in models, checkpoint folders and .gguf files, not {name!r}")

    def open(self) -> tuple[Weights, Callable[[Path], object]]:
        """The weights, and what writes ``tokenizer.json`` to a path."""
        path = self._path
        if self._spec is not None:
            path = unpacked(self._spec) or base_file(self._spec, local_files_only=self._local_files_only)
        whole = sorted(path.glob("*.gguf"))[:1] if path.is_dir() else [path]  # a large base keeps its file as it is
        if not whole:
            return FolderWeights(path), lambda out: shutil.copyfile(path / "tokenizer.json", out)
        weights = GgufWeights(whole[0])
        return weights, lambda out: tokenizer_of(weights.metadata, str(path)).save(str(out))


def _adapter_sha256(adapter: Path) -> str:
    """Of its settings and weights; the latter's is in the manifest, if there is one."""
    manifest, settings = read_manifest(adapter), sha256_file(adapter / "adapter_config.json")
    weights = sorted(manifest.weights.values()) if manifest is not None else []
    return "\n".join([settings, *(weights or [sha256_file(*sorted(adapter.glob("*.safetensors")))])])


def _whole(folder: Path, tell: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """What is recorded of a folder, or None where it is not there; a damaged one, of which ``tell`` is told, is as
    good as none."""
    if not folder.is_dir():
        return None
    try:
        record: dict[str, Any] = json.loads((folder / _RECORD).read_text("utf-8"))
        damaged = [n for n, size in {MANIFEST: 0, **record["bytes"]}.items() if (folder / n).stat().st_size != size]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        damaged = [_RECORD]
    if damaged:
        if tell is not None:
            tell(f"{folder / damaged[0]} is damaged: the model is made again")
        return None
    return record


def _made(
    folder: Path, name: str, base: _Base, adapters: Sequence[Path], scales: Path | None, manifest: Manifest
) -> dict[str, Any]:
    """Write a folder; what is recorded of it."""
    weights, write_tokenizer = base.open()
    pairs = [plain_pairs(adapter) for adapter in adapters]
    plain = [found for found in pairs if found is not None]
    if len(plain) < len(pairs):
        raise UnsupportedError(f"adapter {adapters[pairs.index(None)]}: native merges plain LoRA on linear layers only")
    say(f"making the int8 model of {name} in the cache, once ...")
    weights = Merged(weights, plain, adapters) if plain else weights
    weights = smoothing.Smoothed(weights, scales) if scales is not None else weights
    with atomic_folder(folder) as aside:
        write_int8(weights, aside)
        write_labels(weights, manifest.label_ids, aside)
        write_tokenizer(aside / "tokenizer.json")
        (aside / "config.json").write_text(json.dumps(weights.architecture.config(), indent=2) + "\n", "utf-8")
        files = {file.name: sha256_file(file) for file in sorted(aside.glob("*.safetensors"))}
        own = replace(manifest, kind="model", backend="native", precision="int8", files=files)
        write_manifest(aside, own)
        sizes = {file.name: file.stat().st_size for file in sorted(aside.iterdir())}
        record: dict[str, Any] = {"positions": weights.architecture.positions, "bytes": sizes}
        (aside / _RECORD).write_text(json.dumps(record) + "\n", "utf-8")
    return record
