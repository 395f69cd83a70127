"""Checkpoint folders: the manifest ``prorank.json`` beside weights that three libraries can read.

A folder holds either a whole model (transformers files, plus the sentence-transformers ``CrossEncoder`` layout) or a
LoRA adapter (peft files) whose base is named in the manifest and recognised by its sha256. Writes are atomic, only
safetensors are written and read.
"""

from __future__ import annotations

import datetime
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from prorank._version import __version__
from prorank.early_exit import readouts
from prorank.files import atomic_folder, recover_folder, sha256_file
from prorank.model.adapter import merge_adapter
from prorank.model.base import BaseError, LoadedBase, in_precision, load_base
from prorank.model.card import CardFacts, write_card
from prorank.model.cross_encoder import write_cross_encoder_layout
from prorank.model.hub import hub_checkpoint
from prorank.model.manifest import MANIFEST, Manifest, read_manifest, write_manifest

__all__ = [
    "built_in_rerankers",
    "check_base",
    "checkpoint_folder",
    "load_checkpoint",
    "read_adapter",
    "save_checkpoint",
    "stack_of",
    "verify_files",
]


def checkpoint_folder(name: str) -> Path:
    """The folder that a name means: a built-in reranker's, else the path itself, whether it exists or not."""
    folder = built_in_rerankers().get(name, Path(name).expanduser())
    recover_folder(folder)
    return folder


def built_in_rerankers() -> dict[str, Path]:
    """Rerankers that come with the package: name -> folder."""
    root = Path(__file__).parents[1] / "models"
    return {folder.parent.name: folder.parent for folder in sorted(root.glob(f"*/{MANIFEST}"))}


def read_adapter(name: str) -> tuple[str, Path | None, Manifest | None]:
    """A checkpoint in parts, to be trained further: what base it stands on, its adapter folder, its manifest.

    Args:
        name: as in :func:`load_checkpoint`.

    Returns:
        The name of the base for ``load_base``; the folder of the adapter, or None where the weights are whole; the
        manifest, or None for a plain base.

    Raises:
        BaseError: the folder is damaged, or stores its adapter as a pickle.
    """
    base_name, adapters, manifest = stack_of(hub_checkpoint(name))
    if not adapters:
        return base_name, None, manifest
    folder = adapters[0]
    if not list(folder.glob("*.safetensors")):
        raise BaseError(f"adapter {folder}: no safetensors file (a pickled .bin is not read)")
    return base_name, folder, manifest


def load_checkpoint(
    name: str, *, adapter: str | None = None, dtype: Any = None, local_files_only: bool = False
) -> tuple[LoadedBase, Manifest | None]:
    """Model and tokenizer of a checkpoint folder, a built-in name or a base, adapters merged in float32.

    Args:
        name: a built-in name, a prorank checkpoint, a peft adapter folder, or what ``load_base`` takes.
        adapter: a further adapter folder, merged on top.
        dtype: the torch dtype to end in.

    Raises:
        BaseError: something is missing, damaged, stored as a pickle, or adapter and base do not match.
    """
    import torch

    base_name, adapters, manifest = stack_of(name, adapter)
    options: dict[str, Any] = {"local_files_only": local_files_only}
    base = load_base(base_name, dtype=torch.float32 if adapters else dtype, **options)
    for path in adapters:
        check_base(path, read_manifest(path), base_name, base.sha256)
        last = path == adapters[-1]
        base = base._replace(model=merge_adapter(base.model, path, dtype if last else None))
    if adapters and dtype is not None:
        base = base._replace(model=in_precision(base.model, dtype))
    return base, manifest


def stack_of(name: str, adapter: str | None = None) -> tuple[str, list[Path], Manifest | None]:
    """What a checkpoint is made of, weights unread.

    Args:
        name, adapter: as in :func:`load_checkpoint`.

    Returns:
        The name of the base for ``load_base``; adapter folders in the order in which they are merged; the manifest, or
        None for a plain base.

    Raises:
        BaseError: something is missing or damaged.
    """
    folder = checkpoint_folder(name)
    manifest = read_manifest(folder) if folder.is_dir() else None
    adapters = [folder] if (folder / "adapter_config.json").is_file() else []
    if manifest is not None:
        verify_files(folder, manifest)
    if adapter is not None:
        adapters.append(Path(adapter).expanduser())
        manifest = _adapter_manifest(adapters[-1], manifest)
    base_name = _base_of(folder, manifest) if folder in adapters else str(folder) if folder.is_dir() else name
    return base_name, adapters, manifest


def check_base(adapter: Path, manifest: Manifest | None, base_name: str, base_sha256: str) -> None:
    """Compare the base that an adapter was trained on, by its manifest, with the one it is about to stand on.

    Raises:
        BaseError: they differ. An adapter without a manifest (plain peft) cannot be checked.
    """
    needed = manifest.base_sha256 if manifest is not None and manifest.kind == "adapter" else ""
    if needed and needed != base_sha256:
        raise BaseError(
            f"adapter {adapter.name} was trained on a base with sha256 {needed[:16]}..., but {base_name} has "
            f"{base_sha256[:16]}...: its scores would be wrong"
        )


def save_checkpoint(
    folder: Path | str,
    model: Any,
    tokenizer: Any,
    manifest: Manifest,
    *,
    cascade: readouts.Cascade | None = None,
    card: CardFacts | None = None,
) -> Path:
    """Write a checkpoint folder, atomically; an existing one is replaced as a whole.

    Args:
        model: a transformers model (whole weights are written) or a peft model (its adapter alone is written).
        manifest: ``kind``, ``files``, ``created`` and ``commit`` are filled in here.
        cascade: read-outs fitted on these very weights, to be kept beside them.
        card: what the model card says beyond the manifest.
    """
    folder = Path(folder)
    kind = "adapter" if hasattr(model, "peft_config") else "model"
    with atomic_folder(folder) as aside:
        model.save_pretrained(aside, safe_serialization=True)
        tokenizer.save_pretrained(aside)
        if kind == "model":
            write_cross_encoder_layout(aside, manifest.template, manifest.label_ids, manifest.max_length)
        else:
            _name_base(aside / "adapter_config.json", manifest.base_name)
        if cascade is not None:
            cascade.save(aside)
        weights = {file.name: sha256_file(file) for file in sorted(aside.glob("*.safetensors"))}
        complete = replace(
            manifest,
            kind=kind,
            files=weights,
            commit=manifest.commit or _commit(),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            prorank_version=__version__,
        )
        write_manifest(aside, complete)
        write_card(aside, complete, name=folder.name, facts=card)  # peft's has empty fields
    return folder


def _name_base(adapter_config: Path, base_name: str | None) -> None:
    """peft writes the folder that the base was loaded from; the next machine knows it by its name."""
    data = json.loads(adapter_config.read_text("utf-8"))
    data["base_model_name_or_path"] = base_name or data.get("base_model_name_or_path")
    adapter_config.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Small files by their hash, large ones by being there: hashing half a gigabyte at every start is too slow."""
    for name, sha256 in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise BaseError(f"{folder}: {name} is missing")
        if file.stat().st_size < 64 << 20 and sha256_file(file) != sha256:
            raise BaseError(f"{folder}: {name} is damaged: its sha256 is not the one in {MANIFEST}")


def _adapter_manifest(folder: Path, base: Manifest | None) -> Manifest | None:
    if not (folder / "adapter_config.json").is_file():
        raise BaseError(f"adapter {folder}: no adapter_config.json there (expected a peft LoRA folder)")
    own = read_manifest(folder)
    if own is not None:
        verify_files(folder, own)
    return own or base


def _base_of(folder: Path, manifest: Manifest | None) -> str:
    if manifest is not None and manifest.base_name:
        return manifest.base_name
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    return str(config.get("base_model_name_or_path") or "")


def _commit() -> str:
    """The commit of the working tree prorank runs from, or nothing where it is installed from a wheel."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
