"""The average of several adapters on one base: the mean of the weights that each of them would be merged to.

A LoRA adapter adds s B A to a weight. The mean of k such products is itself one product, of the stacked matrices:
(1/k) sum of s_i B_i A_i = [s_1/k B_1 ... s_k/k B_k] [A_1; ...; A_k]. So the result is an adapter of the summed rank,
and exact. The mean of the A's times the mean of the B's would be another matrix: B_i A_j mix adapters that never met.
(Model soups: Wortsman et al. 2022, arXiv 2203.05482.)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prorank.files import atomic_folder, sha256_file
from prorank.model.base import BaseError
from prorank.model.checkpoint import verify_files
from prorank.model.lora import is_plain
from prorank.model.manifest import Manifest, read_manifest, write_manifest

__all__ = ["average_adapters"]

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def average_adapters(folders: Sequence[Path], out: Path) -> Path:
    """Write the average of adapters as a checkpoint.

    Prompt, limits and tokenizer are the first's. The calibration is left out, because margins change.

    Returns:
        ``out``.

    Raises:
        BaseError: fewer than two folders; one is no prorank adapter with plain LoRA; or they differ in base, template
            or adapted layers.
    """
    if len(folders) < 2:
        raise BaseError(f"average: expected at least two adapters, got {len(folders)}")
    manifests = [_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        for name in ("base_sha256", "template", "label_ids"):
            if getattr(manifest, name) != getattr(manifests[0], name):
                raise BaseError(f"average: {folder} and {folders[0]} differ in {name}")
    from safetensors.torch import save_file

    stacked, rank = _stacked(folders)
    config = json.loads((folders[0] / _CONFIG).read_text("utf-8"))
    config |= {"r": rank, "lora_alpha": float(rank), "use_rslora": False}  # scale 1: the scales are in B
    with atomic_folder(out) as aside:
        for file in sorted(folders[0].iterdir()):
            if file.is_file() and file.suffix in (".json", ".txt", ".jinja", ".model") and file.name != _CONFIG:
                shutil.copyfile(file, aside / file.name)
        save_file(stacked, aside / _WEIGHTS)
        (aside / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        origin = [{"stage": m.stage, "files": dict(m.weights), "config": dict(m.config)} for m in manifests]
        write_manifest(
            aside,
            replace(
                manifests[0], calibration=None, calibration_prior=None, config={"average_of": origin},
                files={_WEIGHTS: sha256_file(aside / _WEIGHTS)},
            ),
        )  # fmt: skip
    return out


def _manifest(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None or manifest.kind != "adapter" or not (folder / _WEIGHTS).is_file():
        raise BaseError(f"average: {folder} is no prorank checkpoint with an adapter")
    verify_files(folder, manifest)
    return manifest


def _stacked(folders: Sequence[Path]) -> tuple[dict[str, Any], int]:
    """The stacked matrices by name, float32, and their rank."""
    import torch
    from safetensors.torch import load_file

    parts: dict[str, list[Any]] = {}
    rank = 0
    for folder in folders:
        config = json.loads((folder / _CONFIG).read_text("utf-8"))
        tensors = load_file(folder / _WEIGHTS)
        pairs = all(".lora_A.weight" in name or ".lora_B.weight" in name for name in tensors)
        if not is_plain(config) or not pairs:
            raise BaseError(f"average: {folder} holds more than plain LoRA, whose average is no adapter")
        if parts and parts.keys() != tensors.keys():
            raise BaseError(f"average: {folder} and {folders[0]} adapt different layers")
        r = int(config["r"])
        scale = float(config["lora_alpha"]) / (r**0.5 if config.get("use_rslora") else r)
        rank += r
        for name, tensor in tensors.items():
            factor = scale / len(folders) if ".lora_B." in name else 1.0
            parts.setdefault(name, []).append(tensor.float() * factor)
    return {
        name: torch.cat(found, dim=1 if ".lora_B." in name else 0).contiguous() for name, found in parts.items()
    }, rank
