"""What a long command needs, looked at before it starts: names, files, folders to write, extras. Nothing is computed.

Every function raises ValueError that opens with the field (or flag) it was given, or ImportError with the extra's name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prorank._optional import check as installed
from prorank.model.options import LoadOptions
from prorank.prompt.template import PromptTemplate

if TYPE_CHECKING:
    from prorank.model.manifest import Manifest

__all__ = [
    "backend_runs",
    "collection_there",
    "device_there",
    "first_stage_known",
    "folder_writable",
    "installed",
    "model_known",
    "models_known",
    "target_writable",
    "template_known",
]

_EXTRAS = {"openvino": "openvino", "onnx": "onnxruntime", "llamacpp": "llama_cpp"}
"""Backend -> the library that runs it; the backend's name is that of the extra."""


def folder_writable(field: str, path: str | Path) -> None:
    """A folder that is there or can be made, and can be written to."""
    path = Path(path)
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ValueError(f"{field}: {path} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{field}: {path} cannot be written: no permission to write in {there}")


def target_writable(field: str, path: str | Path | None) -> None:
    """A file that can be made or written over; None is nothing to check."""
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{field}: {path} is a folder; expected a file name")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{field}: {path} cannot be written: no permission")
    folder_writable(field, path.absolute().parent)


def collection_there(field: str, path: str, split: str | None = None) -> None:
    """A collection of this name, with this split, as far as the names of files tell."""
    from prorank.data.load import splits_of, there

    if path.startswith("irds:"):
        installed("ir_datasets", extra="ir-datasets")
    elif path != "stdlib":
        try:
            there(path)
        except ValueError as error:
            raise ValueError(f"{field}: {str(error).removeprefix('data: ')}") from None
    splits = splits_of(path)
    if split is not None and splits != [None] and split not in splits:
        raise ValueError(f"{field}: {path} has the splits {', '.join(map(str, splits))}; {split!r} is not among them")


def first_stage_known(field: str, spec: str | None) -> None:
    """The name of a first stage whose library is installed, or the path of a run; None is the default's."""
    from prorank.data.first_stage import check_spec

    try:
        check_spec(spec or "bm25")
    except ValueError as error:
        raise ValueError(f"{field}: {str(error).removeprefix('first-stage: ')}") from None


def template_known(field: str, name: str | None) -> None:
    """A preset, or a template file that can be read."""
    if name in (None, "prorank"):
        return
    from prorank.prompt.derive import resolve_template

    try:
        resolve_template(name, None)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def model_known(field: str, name: str | None) -> Manifest | None:
    """A model of this name: built in, a folder or a file that is there, or a hub id that answers.

    Returns:
        Its manifest, where it is a checkpoint or an export.
    """
    from prorank.model.base import load_tokenizer, resolve_base
    from prorank.model.built_in import BUILT_IN
    from prorank.model.checkpoint import checkpoint_folder
    from prorank.model.manifest import read_manifest

    if name is None or name in BUILT_IN:
        return None
    folder = checkpoint_folder(name)
    try:
        if not folder.is_dir():
            if folder.suffix != ".gguf":
                load_tokenizer(name)  # of a hub id the smallest part; anything else is refused at once
            elif not folder.is_file():
                resolve_base(name)
            return None
        manifest = read_manifest(folder)
        if not any((folder / file).is_file() for file in ("prorank.json", "adapter_config.json", "config.json")):
            raise ValueError(f"{name} holds no model (no prorank.json, adapter_config.json or config.json)")
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
    if manifest is not None:
        backend_runs(manifest.backend)
    if manifest is not None and manifest.kind == "adapter" and manifest.base_name:
        model_known(field, manifest.base_name)
    return manifest


def backend_runs(backend: str) -> None:
    """The library, or the processor and the compiler, that a backend needs to run."""
    if backend in _EXTRAS:
        installed(_EXTRAS[backend], extra=backend)
    elif backend == "native":
        from prorank.backends.native.engine import check_engine

        check_engine()


def models_known(options: LoadOptions, names: Sequence[str | None], field: str = "model") -> list[Manifest | None]:
    """The models, and what the options name beside them; the options' own model is not looked at."""
    from prorank.model.loading import check_backend
    from prorank.model.processes import each_process

    check_backend(options.backend)
    if options.processes is not None or options.devices is not None:
        each_process(options)
    if not isinstance(options.template, PromptTemplate):
        template_known("template", options.template)
    adapter = options.adapter
    if adapter is not None and not (Path(adapter).expanduser() / "adapter_config.json").is_file():
        raise ValueError(f"adapter: {adapter} holds no adapter_config.json (expected a peft LoRA folder)")
    device_there(options.device)
    return [model_known(field, name) for name in names]


def device_there(device: str | None) -> None:
    """A device that PyTorch has."""
    if device not in (None, "auto", "cpu"):
        from prorank.backends.devices import pick_device

        pick_device(device)
