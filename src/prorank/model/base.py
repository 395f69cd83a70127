"""Base models: from a name to a transformers model and tokenizer.

A base is a Hugging Face folder, a hub id, a GGUF file, or a built-in one (``prorank.model.built_in``). A small GGUF
file is de-quantised once, to a plain checkpoint in the cache; a large one at every load, which takes seconds, where its
copy would take gigabytes. Only safetensors and GGUF are read, and no code from a checkpoint is ever run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from prorank._optional import require
from prorank.cache import cache_dir
from prorank.files import atomic_folder, folder_lock, link_file, recover_folder
from prorank.model.built_in import BUILT_IN, BaseError, BaseSpec, base_file, say
from prorank.model.hashes import known_sha256

__all__ = [
    "BUILT_IN",
    "BaseError",
    "BaseSpec",
    "LoadedBase",
    "cached_bases",
    "in_precision",
    "load_base",
    "load_tokenizer",
    "resolve_base",
    "unpacked",
    "weights_sha256",
]


_SOURCE = "prorank_base.json"  # beside a GGUF file's checkpoint in the cache: which file it came from
_UNPACKED_BELOW = 256 << 20  # bytes of a GGUF file; a larger one's float32 copy is not kept


class LoadedBase(NamedTuple):
    """A base in memory."""

    model: Any
    """The transformers causal LM, in evaluation mode."""
    tokenizer: Any
    folder: str
    """The folder or hub id it was read from."""
    sha256: str
    """Of the original weights: the GGUF file, or the safetensors files."""


def resolve_base(name: str, *, local_files_only: bool = False) -> Path | str:
    """The folder of a base (de-quantising it first where needed), or the hub id where it is none of ours.

    Raises:
        BaseError: the name is no folder, GGUF file, hub id or built-in; or it cannot be fetched.
    """
    if name in BUILT_IN:
        spec = BUILT_IN[name]
        found = unpacked(spec) or base_file(spec, local_files_only=local_files_only)
        return found if found.is_dir() else _from_gguf(found, spec.sha256, _built_in_folder(spec))
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise BaseError(f"model {name}: no such file")
        return _from_gguf(path, known_sha256(path))
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise BaseError(
            f"model {name!r} is not a folder, a .gguf file, a hub id (owner/name) or a built-in "
            f"({', '.join(BUILT_IN)}); see: prorank models"
        )
    return name


def load_base(
    name: str, *, dtype: Any = None, local_files_only: bool = False, attn_implementation: str | None = None
) -> LoadedBase:
    """Load model and tokenizer of a base.

    Args:
        name: what :func:`resolve_base` takes.
        dtype: a torch dtype; default float32.
        attn_implementation: transformers' name; default: sdpa where the architecture has it.

    Raises:
        BaseError: it cannot be found, its files are damaged, or it is stored as a pickle.
    """
    torch, transformers = require("torch", extra="torch"), require("transformers", extra="torch")
    source = resolve_base(name, local_files_only=local_files_only)
    if isinstance(source, Path):
        _refuse_pickles(source)
    options = {"trust_remote_code": False, "local_files_only": local_files_only or isinstance(source, Path)}
    gguf = _kept_gguf(source)
    weights: dict[str, Any] = {"gguf_file": gguf} if gguf else {"use_safetensors": True}
    with _quiet_transformers(), _readable_errors(name):
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype if dtype is not None else torch.float32,
            attn_implementation=attn_implementation,
            **weights,
            **options,
        )
    if gguf:
        _plain_weights(model)
    sha256 = weights_sha256(source) if isinstance(source, Path) else _hub_sha256(model)
    return LoadedBase(model.eval(), tokenizer, str(source), sha256)


def in_precision(model: Any, dtype: Any) -> Any:
    """The model with its weights in a precision, in place; what it computes positions from stays in float32.

    ``model.to(dtype)`` would round the rotary frequencies too, which no file holds and which transformers itself keeps
    in float32: with a rope base of 100,000, frequencies in bfloat16 turn tokens 300 apart by up to .4 radian wrongly.
    """
    held = set(model.state_dict())
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for name, buffer in model.named_buffers():
        if name in held and buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)
    return model


def load_tokenizer(name: str, *, local_files_only: bool = False) -> Any:
    """The tokenizer of a base, without its weights.

    Raises:
        BaseError: as :func:`load_base`.
    """
    transformers = require("transformers", extra="torch")
    source = resolve_base(name, local_files_only=local_files_only)
    offline = local_files_only or isinstance(source, Path)
    with _quiet_transformers(), _readable_errors(name):
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=offline)


def weights_sha256(folder: Path) -> str:
    """What identifies a folder's weights: the recorded hash of the GGUF file, or the hash of its safetensors files.

    Raises:
        BaseError: the folder holds no weights.
    """
    source = folder / _SOURCE
    if source.is_file():
        return str(json.loads(source.read_text("utf-8"))["sha256"])
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise BaseError(f"model {folder}: no model*.safetensors in this folder")
    return known_sha256(*files)


def _hub_sha256(model: Any) -> str:
    return f"commit:{getattr(model.config, '_commit_hash', None) or 'unknown'}"


def unpacked(spec: BaseSpec) -> Path | None:
    """The folder of a built-in base's checkpoint in the cache, if it is there."""
    folder = _built_in_folder(spec)
    recover_folder(folder)
    return folder if (folder / _SOURCE).is_file() else None


def _built_in_folder(spec: BaseSpec) -> Path:
    return cache_dir("bases", f"{spec.name}-{spec.sha256[:12]}")


def _from_gguf(file: Path, sha256: str, folder: Path | None = None) -> Path:
    """The folder in the cache for a GGUF file: a float32 checkpoint, or, where that would be large, the file itself.

    Of several processes that come first together, one makes it and the others wait.
    """
    folder = folder or cache_dir("bases", f"{file.stem}-{sha256[:12]}")
    recover_folder(folder)
    if (folder / _SOURCE).is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    wait = f"waiting for another process, which unpacks {file.name} ..."
    with folder_lock(folder.with_name(f"{folder.name}.unpacking"), on_wait=lambda: say(wait)):
        if not (folder / _SOURCE).is_file():
            _unpack(file, sha256, folder)
    return folder


def _unpack(file: Path, sha256: str, folder: Path) -> None:
    torch, transformers = require("torch", extra="torch"), require("transformers", extra="torch")
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    whole = file.stat().st_size >= _UNPACKED_BELOW
    if not whole:
        say(f"unpacking {file.name} to float32 weights in the cache, once ...")
    with _quiet_transformers(), _readable_errors(str(file)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **where)
        model: Any = None
        if not whole:
            model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
        config: Any = transformers.AutoConfig.from_pretrained(file.parent, **where) if whole else model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with atomic_folder(folder) as aside, _quiet_transformers():
        if model is None:
            config.save_pretrained(aside)
            link_file(file, aside / file.name)
        else:
            _plain_weights(model)
            model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        (aside / _SOURCE).write_text(json.dumps({"file": file.name, "sha256": sha256, "whole": whole}) + "\n", "utf-8")


def _plain_weights(model: Any) -> None:
    """Say that the weights are plain numbers: transformers still calls those read from GGUF quantised."""
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def _kept_gguf(folder: Path | str) -> str | None:
    """Name of the GGUF file that a folder's weights are read from; None for safetensors."""
    source = Path(folder) / _SOURCE
    if not source.is_file():
        return None
    known = json.loads(source.read_text("utf-8"))
    return str(known["file"]) if known.get("whole") else None


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")) or _kept_gguf(folder):
        return
    pickles = [p.name for p in sorted(folder.iterdir()) if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    if pickles:
        raise BaseError(
            f"model {folder}: {pickles[0]} is a pickle, which can run code when read; only safetensors are read"
        )


@contextlib.contextmanager
def _readable_errors(name: str) -> Iterator[None]:
    """Turn what transformers, safetensors and gguf raise on damaged or missing files into one clear error."""
    try:
        yield
    except BaseError:
        raise
    except ImportError as error:
        raise BaseError(f"model {name}: {_first_line(error)}") from error
    except Exception as error:
        kind = type(error).__name__
        raise BaseError(f"model {name} cannot be loaded: {kind}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and warnings of transformers while we load: our own messages say what is going on."""
    import transformers.utils.logging as logs

    logging: Any = logs
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def cached_bases() -> list[tuple[str, int]]:
    """Folders of bases from GGUF files in the cache and their sizes in bytes."""
    root = cache_dir("bases")
    if not root.is_dir():
        return []
    return [
        (folder.name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()))
        for folder in sorted(root.iterdir())
        if (folder / _SOURCE).is_file()
    ]
