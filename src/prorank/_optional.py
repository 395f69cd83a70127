"""Optional dependencies: one way to import them, one helpful error where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

__all__ = ["check", "require", "said_plainly"]

_TORCH = ("torch", "transformers", "peft", "gguf", "jinja2")


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, or say which extra of this package installs it.

    Raises:
        ImportError: the module is not installed; the message holds the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ImportError(_missing(module, extra)) from None


def check(*modules: str, extra: str) -> None:
    """Say now, before anything else is done, which extra a module that will be needed comes with.

    Raises:
        ImportError: one is not installed, as :func:`require` says it.
    """
    for module in modules:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise ImportError(_missing(module, extra))


def said_plainly(error: ImportError) -> str:
    """The message of an ImportError; where a module of the extra ``torch`` is missing, with the command that installs
    it."""
    module = (error.name or "").partition(".")[0]
    return _missing(module, "torch") if module in _TORCH and isinstance(error, ModuleNotFoundError) else str(error)


def _missing(module: str, extra: str) -> str:
    return f"{module} is not installed; it comes with: pip install 'prorank[{extra}]'"
