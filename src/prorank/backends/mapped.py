"""Weights that stay in their file: mapped when they are wanted, and out of this process's memory when they are not."""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["give_back", "map_tensors"]

_KINDS: Mapping[str, type] = {"I8": np.int8, "F16": np.float16, "F32": np.float32, "BF16": np.uint16}


def map_tensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Tensors of a safetensors file, by name, as views that cannot be written to, and the file's metadata.

    A page is read when something of it is. bfloat16, which numpy does not know, comes as uint16.

    Raises:
        ValueError: the file is damaged, or holds other numbers than int8, float16, bfloat16 and float32.
    """
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:start].tobytes())
        facts = header.pop("__metadata__", {})
        tensors = {}
        for name, one in header.items():
            begin, end = one["data_offsets"]
            tensors[name] = content[start + begin : start + end].view(_KINDS[one["dtype"]]).reshape(one["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a readable safetensors file: {error!r}") from error
    return tensors, facts


def give_back(file: Path) -> bool:
    """Take a file's mapped pages out of this process's memory; a page that is read again comes back from the file.

    Only mappings that cannot be written to are touched.

    Returns:
        Whether there was one (False, too, where the system is not Linux).
    """
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return False
    name, found = str(file.resolve()), False
    advise = ctypes.CDLL(None).madvise
    for line in maps.read_text("utf-8", "replace").splitlines():
        span, access, *_, mapped = line.split(maxsplit=5)
        if mapped == name and "w" not in access:
            start, stop = (int(edge, 16) for edge in span.split("-"))
            found |= advise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED) == 0
    return found
