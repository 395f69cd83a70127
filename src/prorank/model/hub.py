"""The Hugging Face hub: checkpoints there by their id, folders uploaded to it, and what a base is called on it.

Reranker.from_pretrained("owner/name")         # a repository that holds a prorank.json
reranker.push_to_hub("owner/name")             # HF_TOKEN, or `hf auth login`, says who you are
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prorank._optional import require
from prorank.model.built_in import BUILT_IN, BaseError
from prorank.model.manifest import MANIFEST

__all__ = ["BaseFacts", "base_facts", "check_repository", "hub_checkpoint", "push_folder"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_MAKERS = {"smollm2-135m": "HuggingFaceTB", "qwen2.5-coder-0.5b": "Qwen"}
"""Built-in base -> who publishes it on the hub, under the name that its summary begins with."""


class BaseFacts(NamedTuple):
    """A base as its makers publish it."""

    hub_id: str | None
    """None where only a folder or a file is known."""
    licence: str
    """Empty where it is not known."""
    parameters: int | None


def base_facts(name: str, sha256: str) -> BaseFacts:
    """What is known of a base: a built-in one, or one of the hub; of anything else nothing.

    Args:
        name, sha256: as in a manifest; of the hub's weights the latter names the commit.
    """
    if name in BUILT_IN:
        row = BUILT_IN[name]
        return BaseFacts(f"{_MAKERS[name]}/{row.summary.split()[0]}", row.licence, row.parameters)
    of_hub = sha256.startswith("commit:") and _ID.fullmatch(name) is not None
    return BaseFacts(name if of_hub else None, "", None)


def check_repository(field: str, repository: str) -> None:
    """Raises ValueError where a name is no ``owner/name``, before anything is computed for it."""
    if _ID.fullmatch(repository) is None:
        raise ValueError(f"{field}: expected a repository of the hub (owner/name), got {repository!r}")


def hub_checkpoint(name: str, *, local_files_only: bool = False) -> str:
    """The folder of a prorank checkpoint that a hub id means, fetched where needed; any other name as it is.

    A repository without ``prorank.json`` is a base like any other, which transformers loads by its id.

    Raises:
        BaseError: it has one, but not all files came.
    """
    if _ID.fullmatch(name) is None or Path(name).expanduser().exists() or not _has_library():
        return name
    from huggingface_hub import hf_hub_download, snapshot_download

    offline = local_files_only or not _reachable()
    try:
        found = hf_hub_download(name, MANIFEST, local_files_only=offline)
    except Exception:  # no such file or repository, or out of reach: who loads the base by this name says so
        return name
    try:
        return snapshot_download(name, revision=Path(found).parent.name, local_files_only=offline)
    except Exception as error:  # the library's errors have no common class of their own
        raise BaseError(f"model {name}: the hub did not give all its files: {_first_line(error)}") from error


def push_folder(
    folder: Path, repository: str, *, private: bool | None = None, revision: str | None = None,
    message: str | None = None, token: str | None = None,
) -> str:  # fmt: skip
    """Upload a checkpoint or an export; the repository is made where there is none.

    Args:
        private: whether a new repository is.
        revision: the branch; default: main.
        token: default: the environment's HF_TOKEN, or the saved login.

    Returns:
        The address of the commit.

    Raises:
        ValueError: the repository's name is none, the folder is no prorank folder, or the hub refuses.
        ImportError: huggingface_hub is not installed.
    """
    check_repository("repository", repository)
    if not (folder / MANIFEST).is_file():
        raise ValueError(f"{folder} is no prorank folder: it has no {MANIFEST}")
    hub = require("huggingface_hub", extra="torch")
    api: Any = hub.HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=revision,
            commit_message=message or "Upload with prorank", ignore_patterns=[".*"],
        )  # fmt: skip
    except Exception as error:  # the library's errors have no common class of their own
        raise ValueError(f"the hub did not take {repository}: {_first_line(error)}") from error
    return str(done.commit_url)


def _first_line(error: Exception) -> str:
    said = getattr(error, "server_message", None) or str(error).strip() or type(error).__name__
    return str(said).splitlines()[0]


def _has_library() -> bool:
    import importlib.util

    return importlib.util.find_spec("huggingface_hub") is not None


def _reachable() -> bool:
    """Whether the name server knows the hub: the hub client's own retries take minutes without a network."""
    from huggingface_hub import constants

    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
