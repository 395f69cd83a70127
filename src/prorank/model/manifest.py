"""The manifest ``prorank.json``: what a checkpoint folder says of itself, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prorank.early_exit import readouts
from prorank.files import write_atomic
from prorank.model import smoothing
from prorank.model.built_in import BaseError
from prorank.prompt.encoder import DEFAULT_MAX_LENGTH
from prorank.prompt.template import PromptTemplate, TemplateError

__all__ = ["MANIFEST", "SCHEMA_VERSION", "Manifest", "read_manifest", "write_manifest"]

MANIFEST = "prorank.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is, besides its weights."""

    template: PromptTemplate
    label_ids: tuple[int, int]
    max_length: int = DEFAULT_MAX_LENGTH
    query_max_length: int | None = None
    long_documents: str = "truncate"
    kind: str = "model"
    """``model`` (whole weights) or ``adapter`` (LoRA on the base named below)."""
    base_name: str = ""
    """What :func:`prorank.model.base.load_base` takes; for an adapter, the base it needs."""
    base_sha256: str = ""
    """Hash of the base's weights; an adapter refuses any other."""
    backend: str = "torch"
    """What runs the weights: ``torch``, or what the folder was exported for (``openvino``, ``onnx``, ``llamacpp``)."""
    precision: str = ""
    """Of an export: ``int8``, ``bfloat16``, ``float16`` or ``float32``; empty for a checkpoint."""
    stage: str = "base"
    """``base``, ``warmup`` or ``refine``: the last training stage."""
    calibration: tuple[float, float] | None = None
    """(slope, intercept) of probability = sigmoid(slope * margin + intercept), fitted on data; None: not fitted."""
    calibration_prior: float | None = None
    """Share of relevant documents that the probability is for; None: as among the candidates it was fitted on."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved training configuration."""
    commit: str = ""
    created: str = ""
    prorank_version: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """File name -> sha256 of every weights file in the folder, read-outs and int8's scales included."""
    schema_version: int = SCHEMA_VERSION

    @property
    def weights(self) -> dict[str, str]:
        """File name -> sha256 of what margins are computed from: all files but the read-outs and int8's scales."""
        return {name: sha256 for name, sha256 in self.files.items() if name not in (readouts.FILE, smoothing.FILE)}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "template": self.template.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = MANIFEST) -> Manifest:
        """Read :meth:`to_dict`'s form.

        Raises:
            BaseError: a field is missing, unknown or of the wrong kind, or the schema is newer than this version.
        """
        fields = dict(data)
        version = fields.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BaseError(f"{where}: schema_version is {version!r}; this prorank reads {SCHEMA_VERSION}")
        try:
            fields["template"] = PromptTemplate.from_dict(fields["template"])
            fields["label_ids"] = (int(fields["label_ids"][0]), int(fields["label_ids"][1]))
            if fields.get("calibration") is not None:
                fields["calibration"] = (float(fields["calibration"][0]), float(fields["calibration"][1]))
            return cls(**fields)
        except (KeyError, TypeError, IndexError, TemplateError) as error:
            raise BaseError(f"{where}: {type(error).__name__}: {error}") from error


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, or None where it has none (a plain base).

    Raises:
        BaseError: there is one and it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BaseError(f"{path}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise BaseError(f"{path}: expected an object")
    return Manifest.from_dict(data, str(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``prorank.json``; an existing one is replaced at once."""
    write_atomic(folder / MANIFEST, json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n")
