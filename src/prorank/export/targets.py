"""Exports a checkpoint to another engine's format, atomically, and judges the result by the scores it gives."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from prorank._optional import check
from prorank.export.parity import Scores, parity_texts
from prorank.files import atomic_folder, sha256_file
from prorank.model.card import CardFacts, write_card
from prorank.model.manifest import MANIFEST, write_manifest

if TYPE_CHECKING:
    from prorank.reranker import Reranker

__all__ = ["TARGETS", "Target", "check_target", "export", "opened", "typical_run"]


class Target(NamedTuple):
    """One value of ``prorank export --to``."""

    backend: str
    precision: str
    summary: str


TARGETS: dict[str, Target] = {
    "native-int8": Target("native", "int8", "our own engine: int8, on x86 since AVX2 and on 64-bit ARM; the fastest"),
    "openvino-int8": Target("openvino", "int8", "int8 weights, activations quantised as they come"),
    "openvino-bf16": Target("openvino", "bfloat16", "16-bit weights, multiplied in bfloat16"),
    "openvino-f32": Target("openvino", "float32", "32-bit weights: the reference"),
    "onnx": Target("onnx", "float32", "for ONNX Runtime, 32 bits"),
    "onnx-int8": Target("onnx", "int8", "for ONNX Runtime, weights int8, activations quantised as they come"),
    "fastembed": Target("fastembed", "float32", "for fastembed's TextCrossEncoder, 32 bits"),
    "fastembed-int8": Target("fastembed", "int8", "for fastembed's TextCrossEncoder, weights int8"),
    "gguf": Target("llamacpp", "float16", "for llama.cpp, 16-bit weights"),
    "gguf-q8": Target("llamacpp", "int8", "for llama.cpp, Q8_0 weights"),
    "seq-cls": Target("seq-cls", "float32", "one score a prompt, for AutoModelForSequenceClassification and vLLM"),
    "merged": Target("torch", "", "one whole checkpoint: adapters merged, in transformers' and CrossEncoder's layout"),
}


def export(
    reranker: Reranker, target: str, out: Path, *, source_gguf: Path | None = None, card: CardFacts | None = None
) -> Path:
    """Write ``out``: the engine's files, the tokenizer and a manifest that names the backend.

    Args:
        reranker: loaded in float32 by PyTorch on the CPU; its limits, template and calibration go along.
        target: a name of :data:`TARGETS`.
        source_gguf: the file that the base came from, whose tokenizer a GGUF export takes over.
        card: what the model card says beyond the manifest.

    Raises:
        ValueError: unknown target, ``out`` exists and is no export, or the architecture does not fit the format.
        ImportError: the engine's library is not installed.
    """
    check_target(target, out)
    chosen = TARGETS[target]
    if chosen.backend == "torch":
        return reranker.save(out, card=card)
    with atomic_folder(out) as aside:
        if chosen.backend != "fastembed":  # that one has a tokenizer of its own
            reranker.encoder.tokenizer.save_pretrained(aside)
        model: Any = reranker.backend.model  # type: ignore[attr-defined]
        model.config.save_pretrained(aside)  # the architecture's sizes, for `prorank bench`
        with _own_attention(reranker), _ready_for(chosen, reranker):
            _WRITERS[chosen.backend](reranker, chosen.precision, aside, source_gguf)
        if chosen.backend == "native" and reranker.cascade is not None:
            reranker.cascade.save(aside)
        files = {f.name: sha256_file(f) for f in sorted(aside.iterdir()) if f.suffix in _WEIGHTS}
        manifest = replace(
            reranker.current_manifest(), kind="model", backend=chosen.backend, precision=chosen.precision, files=files
        )
        write_manifest(aside, manifest)
        write_card(aside, manifest, name=out.name, facts=card)
    return out


def check_target(target: str, out: Path) -> None:
    """Whether :func:`export` can write this format there, before a model is loaded.

    Raises:
        ValueError: unknown target, or ``out`` exists and is no export.
        ImportError: a library that writes the format is missing; says what to install.
    """
    if target not in TARGETS:
        raise ValueError(f"--to: {target!r} is none of {', '.join(TARGETS)}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise ValueError(f"--out: {out} exists and is not a prorank folder; choose another name")
    check(
        *_LIBRARIES.get(target, ()), extra={"fastembed": "onnx"}.get(TARGETS[target].backend, TARGETS[target].backend)
    )


_LIBRARIES = {
    "openvino-int8": ("openvino", "nncf"),
    "openvino-bf16": ("openvino",),
    "openvino-f32": ("openvino",),
    "onnx": ("onnx", "onnxruntime"),
    "onnx-int8": ("onnx", "onnx_ir", "onnxruntime"),
    "fastembed": ("onnx", "onnxruntime"),
    "fastembed-int8": ("onnx", "onnx_ir", "onnxruntime"),
}
"""Target -> what writes it; GGUF files need no library to be written."""


@contextlib.contextmanager
def _own_attention(reranker: Any) -> Iterator[None]:
    """Writers may change how the model attends; afterwards the reranker scores as before."""
    model = reranker.backend.model
    before = model.config._attn_implementation
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def _ready_for(target: Target, reranker: Any) -> Iterator[None]:
    """For int8 in OpenVINO and in our own engine outliers are evened out first, and weights rounded so that their
    errors cancel, by what a few prompts show; elsewhere it is untried."""
    if target.backend not in ("native", "openvino") or target.precision != "int8":
        yield
        return
    from prorank.backends.native.engine import GROUP
    from prorank.export.native import check_native
    from prorank.export.rounding import rounded
    from prorank.export.smoothing import smoothed

    model, run = reranker.backend.model, typical_run(reranker)
    group = None
    if target.backend == "native":
        check_native(model)
        group = GROUP

    with smoothed(model, run), rounded(model, _prompts(reranker, queries=8, documents=4), group=group):
        yield


def typical_run(reranker: Any) -> Callable[[], Any]:
    """What sends ten prompts through a loaded PyTorch model: the last states ``(10, hidden)``."""
    import torch

    model, few = reranker.backend.model, _prompts(reranker, queries=5, documents=2)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([model.base_model(torch.tensor([ids])).last_hidden_state[0, -1:] for ids in few])

    return run


def _prompts(reranker: Reranker, queries: int, documents: int) -> list[list[int]]:
    """Token ids of whole prompts about the built-in collection."""
    texts = parity_texts(queries, documents)
    groups = [reranker.encode(query, found).group for query, found in texts.items()]
    return [[*group.prefix_ids, *own] for group in groups for own in group.own_ids]


def opened(target: str, folder: Path, threads: int | None = None) -> Scores:
    """What an export scores with."""
    if TARGETS[target].backend == "fastembed":
        from prorank.export.fastembed import FastembedFolder

        return FastembedFolder(folder)
    from prorank.reranker import Reranker

    return Reranker.from_pretrained(folder, threads=threads)


_WEIGHTS = (".bin", ".xml", ".onnx", ".data", ".gguf", ".safetensors")


def _openvino(reranker: Any, precision: str, folder: Path, _source: Path | None) -> None:
    from prorank.export.graph import write_head
    from prorank.export.openvino import write_openvino

    weights = {"int8": "int8", "bfloat16": "float16", "float32": "float32"}[precision]
    write_openvino(reranker.backend.model, folder, weights=weights)
    write_head(reranker.backend.model, reranker.encoder.label_ids, folder)


def _native(reranker: Any, _precision: str, folder: Path, _source: Path | None) -> None:
    from prorank.export.graph import write_head
    from prorank.export.native import write_native

    write_native(reranker.backend.model, folder)
    write_head(reranker.backend.model, reranker.encoder.label_ids, folder)


def _onnx(reranker: Any, precision: str, folder: Path, _source: Path | None) -> None:
    from prorank.export.graph import write_head
    from prorank.export.onnx import write_onnx

    write_onnx(reranker.backend.model, folder, weights=precision)
    write_head(reranker.backend.model, reranker.encoder.label_ids, folder)


def _fastembed(reranker: Any, precision: str, folder: Path, _source: Path | None) -> None:
    from prorank.export.fastembed import write_fastembed

    write_fastembed(reranker.backend.model, reranker.encoder, folder, weights=precision)


def _gguf(reranker: Any, precision: str, folder: Path, source: Path | None) -> None:
    from prorank.export.gguf import write_gguf

    kind: Any = {"float16": "f16", "int8": "q8_0"}[precision]
    write_gguf(
        reranker.backend.model, reranker.encoder.tokenizer, folder / "model.gguf", quantisation=kind, source=source
    )


def _seq_cls(reranker: Any, _precision: str, folder: Path, _source: Path | None) -> None:
    from prorank.export.seq_cls import write_score_template, write_seq_cls

    encoder = reranker.encoder
    pad = encoder.tokenizer.pad_token_id
    pad = encoder.tokenizer.eos_token_id if pad is None else pad
    if pad is None or encoder.suffix_ids[-1:] == [pad]:
        raise ValueError("export: the tokenizer has no padding token, or the prompt ends with it")
    write_seq_cls(reranker.backend.model, encoder.label_ids, int(pad), folder)
    write_score_template(folder, encoder.template)


_WRITERS: dict[str, Callable[[Any, str, Path, Path | None], None]] = {
    "native": _native,
    "openvino": _openvino,
    "onnx": _onnx,
    "fastembed": _fastembed,
    "llamacpp": _gguf,
    "seq-cls": _seq_cls,
}
