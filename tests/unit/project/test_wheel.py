"""The wheel carries our own engine, which scores to the last bit as the one that is compiled on first use."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank.backends.native import binaries, compiler, engine, levels
from prorank.types import EncodedGroup
from testkit.native import HERE, runs_here, write_random

REPO = Path(__file__).resolve().parents[3]
GROUP = EncodedGroup([3, 1, 4, 1, 5, 9], [[2, 6], [5, 3, 5, 8, 9, 7, 9], list(range(40)), [7]], 2)
MODELS: list[dict[str, Any]] = [{"biases": True}, {"norms": True, "size": 128, "heads": 2, "key_heads": 1}]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the engine for this processor's best level, unpacked."""
    for name in ("hatchling", "ziglang"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (group wheel)")
    features = levels.processor_features()
    level = levels.chosen_level(features)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", f"from hatchling.build import build_wheel; print(build_wheel({str(out)!r}))"]
    only = {"PRORANK_WHEEL_ONLY": f"{binaries.system()}/{level.name}"}
    done = subprocess.run(command, cwd=REPO, env={**os.environ, **only}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    name = done.stdout.split()[-1]
    assert name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(out / name) as archive:
        wanted = [one for one in archive.namelist() if one.startswith("prorank/backends/native/")]
        archive.extractall(out, wanted)
    return out / "prorank" / "backends" / "native"


@runs_here
def test_its_engine_gives_the_same_bits(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = levels.processor_features()
    flags = levels.level_flags(levels.chosen_level(features), features)
    library, origin = compiler.opened(wheel / "native.c", flags)
    assert origin.startswith("from the wheel (ziglang ")
    for number, sizes in enumerate(MODELS):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_random(folder, **sizes)
        wanted = engine.NativeBackend(folder, (0, 1)).label_logits(GROUP)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "opened", lambda *_: (library, origin))
            engine._library.cache_clear()
            assert engine.check_engine()[1] == origin
            got = engine.NativeBackend(folder, (0, 1)).label_logits(GROUP)
        engine._library.cache_clear()
        assert np.array_equal(got, wanted)


def test_an_engine_of_other_sources_or_systems_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, file = tmp_path / "tiny.c", tmp_path / "binaries" / "tiny.so"
    source.write_text("int forty_two(void) { return 42; }\n", "utf-8")
    file.parent.mkdir()
    file.write_bytes(b"of another C library")
    one = {
        "system": binaries.system(), "file": "binaries/tiny.so", "flags": ["-O1"],
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    whole = {"sources": binaries.sources_sha256(source), "compiler": "zig", "libraries": [one]}

    def put(**changed: Any) -> None:
        (tmp_path / binaries.INDEX).write_text(json.dumps({**whole, **changed}), "utf-8")

    assert binaries.carried(source, ["-O1"]) is None, "no index"
    put()
    assert binaries.carried(source, ["-O1"]) == (file, "zig")
    assert binaries.carried(source, ["-O2"]) is None
    for changed in ({"sources": "0"}, {"libraries": [{**one, "system": "amiga-68k"}]}):
        put(**changed)
        assert binaries.carried(source, ["-O1"]) is None
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        for changed in ({"libraries": [{**one, "sha256": "0"}]}, {"libraries": [{**one, "file": "gone"}]}):
            put(**changed)
            assert binaries.carried(source, ["-O1"]) is None
        (tmp_path / binaries.INDEX).write_text("[", "utf-8")
        assert binaries.carried(source, ["-O1"]) is None
    assert len(caplog.records) == 3
    put()
    try:
        compiler.compiler()
    except ImportError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "cache"))
    library, origin = compiler.opened(source, ["-O1"])
    assert library.forty_two() == 42
    assert origin.startswith("compiled by ")


def test_without_a_compiler_the_wheel_is_built_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (group wheel)")
    import hatch_build

    said: list[str] = []

    class App:
        display_warning = staticmethod(said.append)

    hook = hatch_build.EngineHook(str(REPO), {}, None, None, str(tmp_path), "wheel", App())  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for version, lines in (("editable", 0), ("standard", 1)):
        data: dict[str, Any] = {"force_include": {}}
        hook.initialize(version, data)
        assert data == {"force_include": {}}
        assert len(said) == lines
    assert said == ["no ziglang: the wheel carries no engine and will compile it on first use"]


def test_every_level_that_can_be_chosen_is_built() -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed (group wheel)")
    import hatch_build

    built = {name for _, names in hatch_build.SYSTEMS.values() for name in names}
    assert built == {level.name for level in levels.LEVELS}
    assert HERE == [] or HERE[-1].name in hatch_build.SYSTEMS[binaries.system()][1]
