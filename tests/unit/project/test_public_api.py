"""The public API is what public_api.txt says: whoever changes it does so on purpose.

python tests/unit/project/test_public_api.py    # write it; then CHANGELOG.md (CONTRIBUTING.md, Versions)
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prorank

SNAPSHOT = Path(__file__).with_name("public_api.txt")
REPO = Path(__file__).resolve().parents[3]


def test_the_public_api_is_the_recorded_one() -> None:
    expected = SNAPSHOT.read_text("utf-8").splitlines()
    found = list(described())
    gone, new = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    assert not gone, f"gone or changed: {gone}; deprecate first (CONTRIBUTING.md), or run {Path(__file__).name}"
    assert not new, f"new: {new}; if it is meant to stay: python {Path(__file__).relative_to(REPO)}"


def test_every_name_is_explained_and_on_the_site() -> None:
    page = (REPO / "docs" / "build_site.py").read_text("utf-8")
    for name in prorank.__all__:
        found = getattr(prorank, name)
        assert inspect.getdoc(found), name
        assert f'"{name}"' in page, f"docs/build_site.py: API lacks {name}"


def described() -> Iterator[str]:
    """A line for every name, parameter list, field and attribute; annotations may change, names and defaults not."""
    for name in sorted(prorank.__all__):
        found = getattr(prorank, name)
        yield f"{name}{parameters(found)}"
        if not inspect.isclass(found):
            continue
        fields = (
            getattr(found, "_fields", None) or [f.name for f in dataclasses.fields(found)] if is_record(found) else []
        )
        yield from (f"{name}.{field}" for field in fields)
        for member, value in inspect.getmembers(found):
            plain = getattr(value, "__func__", getattr(value, "fget", value))
            if member.startswith("_") or not str(getattr(plain, "__module__", "")).startswith("prorank"):
                continue
            yield f"{name}.{member}{parameters(value) if callable(value) else ''}"


def is_record(found: type) -> bool:
    return hasattr(found, "_fields") or dataclasses.is_dataclass(found)


def parameters(found: Any) -> str:
    signature = inspect.signature(found)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(described()) + "\n", "utf-8")
