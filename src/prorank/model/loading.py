"""From a name to the parts of a reranker: what computes logits, what makes token ids, and what is known of both.

A name is a built-in, a checkpoint, a base, or a folder that ``prorank export`` wrote; the manifest says which backend
runs it. Exported folders are opened without PyTorch and transformers.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from prorank._optional import require
from prorank.early_exit.readouts import Cascade
from prorank.early_exit.scoring import EarlyExit
from prorank.files import recover_folder
from prorank.model.architecture import UnsupportedError
from prorank.model.built_in import say
from prorank.model.checkpoint import checkpoint_folder, load_checkpoint, stack_of
from prorank.model.default_engine import default_engine, has_torch, why_not
from prorank.model.engines import BACKENDS
from prorank.model.exported import open_exported
from prorank.model.hub import hub_checkpoint
from prorank.model.manifest import Manifest, read_manifest
from prorank.model.options import LoadOptions
from prorank.prompt.encoder import DEFAULT_MAX_LENGTH, PromptEncoder
from prorank.prompt.template import PromptTemplate
from prorank.scoring import Backend

if TYPE_CHECKING:
    from prorank.backends.torch import TorchBackend

__all__ = ["LoadOptions", "Parts", "check_backend", "combined_sha256", "early_exits", "load_parts"]


class Parts(NamedTuple):
    """What a reranker is made of."""

    backend: Backend
    encoder: PromptEncoder
    manifest: Manifest
    weights_sha256: str
    cascade: Cascade | None = None


def load_parts(name: str, options: LoadOptions) -> Parts:
    """Open what ``name`` stands for.

    Raises:
        ValueError: something does not exist or does not fit; the message names it.
    """
    kind, where = check_backend(options.backend)
    if options.threads is not None and options.threads < 1:
        raise ValueError(f"threads must be at least 1, got {options.threads}")
    if kind == "remote":
        return _remote(name, where, options)
    name = hub_checkpoint(name, local_files_only=options.local_files_only)
    folder = Path(name).expanduser()
    recover_folder(folder)
    manifest = read_manifest(folder) if folder.is_dir() else None
    holds = manifest.backend if manifest is not None else "torch"
    if holds == "torch" and (found := _by_default(name, options) if kind == "auto" else None) is not None:
        return found
    if holds == "torch" and kind == "native":
        return _native(name, options)
    if kind not in ("auto", holds):
        made_from = name if holds == "torch" else "the checkpoint it was made from"
        hint = f"export {made_from}: prorank export --to {kind}" if kind != "torch" else "name the checkpoint"
        raise ValueError(f"backend {kind!r}: {name} is made for {holds}; {hint}")
    if manifest is not None and holds != "torch":
        dtype = options.dtype if options.dtype != "auto" else None
        for flag, value in (("adapter", options.adapter), ("dtype", dtype)):
            if value is not None:
                raise ValueError(f"{flag}: {name} is an export, whose weights are fixed; give it to prorank export")
        _check_device(holds, options)
        return _exported(folder, manifest, options)
    return _torch(name, options)


def _by_default(name: str, options: LoadOptions) -> Parts | None:
    """A checkpoint on our own engine, or None where PyTorch is to run it."""
    chosen = default_engine(
        name, device=options.device, dtype=options.dtype, share_prefix=options.share_prefix,
        changed=options.adapter is not None or options.template is not None,
    )  # fmt: skip
    if chosen == "torch":
        return None
    try:
        return _native(name, options)
    except (UnsupportedError, ImportError) as error:  # the latter: it crashes here
        if not has_torch():
            raise type(error)(f"{error}; PyTorch may run it: pip install 'prorank[torch]'") from error
        say(f"{error}; PyTorch runs {name} instead")
        return None


def _check_device(backend: str, options: LoadOptions) -> None:
    if options.device not in (None, "auto", "cpu"):
        raise ValueError(f"device: the {backend} backend runs on the CPU, got {options.device!r}")


def _native(name: str, options: LoadOptions) -> Parts:
    """A checkpoint on our own engine, in int8 made for it in the cache."""
    from prorank.model.int8_cache import int8_of
    from prorank.prompt.derive import resolve_template
    from prorank.prompt.tokenizer import FastTokenizer

    if options.dtype not in (None, "auto"):
        raise ValueError(f"dtype: the native backend computes in int8, got {options.dtype!r}; --backend torch has it")
    _check_device("native", options)
    if (reason := why_not()) is not None:
        raise ImportError(reason)
    adapter = os.fspath(options.adapter) if options.adapter is not None else None
    base_name, adapters, manifest = stack_of(name, adapter)
    if manifest is None:
        raise UnsupportedError(f"native runs rerankers, not the bare base {name}, whose prompt PyTorch derives")
    made = int8_of(name, base_name, adapters, manifest, local_files_only=options.local_files_only)
    tokenizer = FastTokenizer(made.folder)
    encoder = _encoder(
        tokenizer, resolve_template(_template(options, manifest), tokenizer), options, manifest, made.positions
    )
    if encoder.label_ids != tuple(manifest.label_ids):
        raise UnsupportedError(
            f"template {encoder.template.name!r}: its label words are not those of {name}; native has no others"
        )
    backend = open_exported(made.folder, made.manifest, threads=options.threads, max_length=encoder.max_length)
    weights = combined_sha256(made.base_sha256, *manifest.weights.values())
    cascade = Cascade.load(checkpoint_folder(name)) if adapter is None else None
    return Parts(backend, encoder, manifest, weights, cascade)


def check_backend(value: str) -> tuple[str, str]:
    """``--backend`` as (kind, where it is).

    Raises:
        ValueError: there is no such backend.
    """
    kind, _, where = value.partition(":")
    if kind not in ("auto", "torch", "remote", *BACKENDS) or (kind == "remote") != bool(where):
        raise ValueError(f"backend must be auto, torch, {', '.join(BACKENDS)} or remote:MODEL@URL, got {value!r}")
    return kind, where


def _torch(name: str, options: LoadOptions) -> Parts:
    torch = require("torch", extra="torch")
    require("transformers", extra="torch")

    from prorank.backends.devices import pick_device, pick_dtype
    from prorank.backends.torch import TorchBackend
    from prorank.prompt.derive import resolve_template

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    chosen = pick_device(options.device)
    base, manifest = load_checkpoint(
        name,
        adapter=os.fspath(options.adapter) if options.adapter is not None else None,
        dtype=pick_dtype(options.dtype, chosen),
        local_files_only=options.local_files_only,
    )
    frozen = resolve_template(_template(options, manifest), base.tokenizer)
    positions = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
    encoder = _encoder(base.tokenizer, frozen, options, manifest, positions)
    if manifest is None:
        manifest = Manifest(frozen, encoder.label_ids, base_name=name, base_sha256=base.sha256)
    return Parts(
        TorchBackend(base.model.to(chosen), encoder.label_ids, share_prefix=options.share_prefix),
        encoder,
        manifest,
        combined_sha256(base.sha256, *manifest.weights.values()),
        Cascade.load(checkpoint_folder(name)) if options.adapter is None else None,
    )


def early_exits(backend: Backend, cascade: Cascade) -> EarlyExit:
    """The backend with read-outs on the way.

    Raises:
        ValueError: the backend, or the architecture, cannot stop half way.
    """
    if not backend.capabilities.layers:
        raise ValueError(f"cascade: backend {backend.name} cannot stop half way; torch and native can, in one process")
    from prorank.backends.native.engine import NativeBackend

    if isinstance(backend, NativeBackend):
        from prorank.early_exit.native import NativeEarlyExit

        return NativeEarlyExit(backend, cascade)
    from prorank.early_exit.torch import TorchEarlyExit

    return TorchEarlyExit(cast("TorchBackend", backend), cascade.layers, cascade.weights)


def _exported(folder: Path, manifest: Manifest, options: LoadOptions) -> Parts:
    from prorank.model.checkpoint import verify_files
    from prorank.prompt.derive import resolve_template
    from prorank.prompt.tokenizer import FastTokenizer

    verify_files(folder, manifest)
    tokenizer = FastTokenizer(folder)
    frozen = resolve_template(_template(options, manifest), tokenizer)
    encoder = _encoder(tokenizer, frozen, options, manifest, None)
    if encoder.label_ids != tuple(manifest.label_ids):
        raise ValueError(
            f"template {frozen.name!r}: its label words are not the ones that {folder} was exported with; "
            "export again with --template"
        )
    backend = open_exported(folder, manifest, threads=options.threads, max_length=encoder.max_length)
    weights = combined_sha256(*manifest.weights.values())
    return Parts(backend, encoder, manifest, weights, Cascade.load(folder))


def _remote(name: str, where: str, options: LoadOptions) -> Parts:
    from prorank.backends.remote import RemoteBackend
    from prorank.model.base import load_tokenizer
    from prorank.model.checkpoint import read_adapter
    from prorank.prompt.derive import resolve_template

    model, _, url = where.rpartition("@")
    if not model or not url.startswith(("http://", "https://")):
        raise ValueError(f"backend remote: expected remote:MODEL@http(s)://HOST/v1 (or /classify), got {where!r}")
    base_name, _, manifest = read_adapter(name)
    tokenizer = load_tokenizer(base_name, local_files_only=options.local_files_only)
    frozen = resolve_template(_template(options, manifest), tokenizer)
    encoder = _encoder(tokenizer, frozen, options, manifest, None)
    if manifest is None:
        manifest = Manifest(encoder.template, encoder.label_ids, base_name=name, backend="remote")
    backend = RemoteBackend(url, model, encoder.label_ids, label_words=encoder.template.label_words)
    return Parts(backend, encoder, manifest, combined_sha256(model, url))


def _template(options: LoadOptions, manifest: Manifest | None) -> str | PromptTemplate | None:
    """What was asked for, else what the checkpoint was trained with."""
    return manifest.template if options.template is None and manifest is not None else options.template


def _encoder(
    tokenizer: Any, template: PromptTemplate, options: LoadOptions, manifest: Manifest | None, positions: int | None
) -> PromptEncoder:
    own = (manifest.max_length if manifest else 0) or DEFAULT_MAX_LENGTH
    encoder = PromptEncoder(
        tokenizer,
        template,
        max_length=options.max_length or (min(own, positions) if positions else own),
        query_max_length=options.query_max_length or (manifest.query_max_length if manifest else None),
        long_documents=options.long_documents or (manifest.long_documents if manifest else "truncate"),  # type: ignore[arg-type]
    )
    if positions and encoder.max_length > positions:
        raise ValueError(f"max_length {encoder.max_length} is more than the model's {positions} positions")
    return encoder


def combined_sha256(*parts: str) -> str:
    """One sha256 of several."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
