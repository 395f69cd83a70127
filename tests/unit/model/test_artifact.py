"""Checkpoints and bases: what is damaged, dangerous or does not fit is refused with a clear error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prorank import Reranker
from prorank.files import atomic_folder, write_atomic
from prorank.model.base import BaseError, load_base
from prorank.model.manifest import Manifest, read_manifest
from prorank.prompt.presets import PRESETS
from prorank.scoring import NonFiniteMarginError


@pytest.fixture
def copy(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama_dir, tmp_path / "model"))


def test_manifest_round_trip() -> None:
    manifest = Manifest(PRESETS["prorank"], (32, 33), calibration=(0.5, -1.0), files={"a": "b"})
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"schema_version": 99}', "schema_version is 99"),
        ('{"schema_version": 1}', "template"),
    ],
)
def test_unreadable_manifest(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "prorank.json").write_text(content)
    with pytest.raises(BaseError, match=message):
        read_manifest(tmp_path)


def test_nan_in_weights_is_a_clear_error(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    reranker = Reranker.from_pretrained(copy, dtype="float32")
    with pytest.raises(NonFiniteMarginError, match="NaN or infinity"):
        reranker.rank("q", ["a", "b"])


def test_truncated_safetensors(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BaseError, match="cannot be loaded"):
        load_base(str(copy))


def test_truncated_gguf(tmp_path: Path, base_folder: Path) -> None:
    del base_folder
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x01" * 100)
    with pytest.raises(BaseError, match=r"broken\.gguf cannot be loaded"):
        load_base(str(file))


def test_a_pickle_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, copy / "pytorch_model.bin")
    with pytest.raises(BaseError, match=r"pytorch_model\.bin is a pickle"):
        load_base(str(copy))


@pytest.mark.parametrize("name", ["nope", "./nope", "/nope/model.gguf", "a/b/c"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(BaseError, match=r"nope|a/b/c"):
        load_base(name)


def test_adapter_of_another_base_is_refused(tiny_dirs: dict[str, Path], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from prorank.model.checkpoint import save_checkpoint

    base = load_base(str(tiny_dirs["llama"]))
    model = AutoModelForCausalLM.from_pretrained(tiny_dirs["llama"])
    lora = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    manifest = Manifest(PRESETS["prorank"], (32, 33), base_name=str(tiny_dirs["llama"]), base_sha256=base.sha256)
    folder = save_checkpoint(tmp_path / "adapter", lora, base.tokenizer, manifest)
    saved = read_manifest(folder)
    assert saved is not None
    assert saved.kind == "adapter"
    assert Reranker.from_pretrained(folder, dtype="float32").rank("q", ["a"])
    with pytest.raises(BaseError, match="was trained on a base with sha256"):
        Reranker.from_pretrained(tiny_dirs["qwen2"], adapter=folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(BaseError, match="damaged"):
        Reranker.from_pretrained(folder)


def test_missing_adapter(tiny_llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseError, match=r"no adapter_config\.json"):
        Reranker.from_pretrained(tiny_llama_dir, adapter=tmp_path)


def test_max_length_beyond_the_model(tiny_llama_dir: Path) -> None:
    with pytest.raises(ValueError, match="2048 positions"):
        Reranker.from_pretrained(tiny_llama_dir, max_length=4096)


@pytest.mark.parametrize(
    ("option", "value"),
    [("backend", "x"), ("dtype", "int3"), ("device", "cuda:99"), ("threads", 0), ("long_documents", "x")],
)
def test_bad_options_are_named(tiny_llama_dir: Path, option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        Reranker.from_pretrained(tiny_llama_dir, **{option: value})  # type: ignore[arg-type]


def test_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_folder(target) as aside:
        (aside / "a").write_text("old")
    with contextlib.suppress(RuntimeError), atomic_folder(target) as aside:
        (aside / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "home"}
    write_atomic(target / "b", "text")
    assert (target / "b").read_text() == "text"


def test_a_plain_folder_is_hashed_once_and_again_when_it_changes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prorank.model import hashes

    hashed: list[Path] = []
    real = hashes.sha256_file
    monkeypatch.setattr(hashes, "sha256_file", lambda *paths: hashed.extend(paths) or real(*paths))
    now = (copy / "model.safetensors").stat().st_ctime
    monkeypatch.setattr(hashes.time, "time", lambda: now + 1)
    first = load_base(str(copy)).sha256
    assert load_base(str(copy)).sha256 == first
    assert len(hashed) == 2  # just written: it may change within a tick of the clock, so nothing is remembered yet
    monkeypatch.setattr(hashes.time, "time", lambda: now + 60)
    for _ in range(3):
        assert load_base(str(copy)).sha256 == first
    assert len(hashed) == 3
    file = copy / "model.safetensors"
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)  # the same size, and the times set back
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_base(str(copy)).sha256 != first


def test_two_first_processes_unpack_a_base_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one waits and takes what the first has made; nothing is swapped under it."""
    import threading
    import time

    from prorank.model import base as bases

    made: list[int] = []

    def unpack(_file: Path, sha256: str, folder: Path) -> None:
        made.append(1)
        time.sleep(0.2)
        with atomic_folder(folder) as aside:
            (aside / "prorank_base.json").write_text(json.dumps({"sha256": sha256}))

    monkeypatch.setattr(bases, "_unpack", unpack)
    threads = [
        threading.Thread(target=bases._from_gguf, args=(Path("x.gguf"), "a" * 64, tmp_path / "bases" / "x"))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    assert [p.name for p in (tmp_path / "bases").iterdir()] == ["x"]


@pytest.mark.parametrize("by", ["save", "export"])
def test_read_outs_go_along(tiny_llama_dir: Path, tmp_path: Path, by: str) -> None:
    import numpy as np

    from prorank.early_exit.readouts import Cascade
    from prorank.export.targets import export

    reranker = Reranker.from_pretrained(tiny_llama_dir, dtype="float32")
    width = reranker.backend.model.config.hidden_size  # type: ignore[attr-defined]
    weights = np.random.default_rng(0).normal(size=(1, 2 * width)).astype(np.float32)
    reranker.cascade = Cascade((1,), weights, 10, {"fast": (0.5,)})
    out = reranker.save(tmp_path / "out") if by == "save" else export(reranker, "merged", tmp_path / "out")
    documents = [f"passage {i}" for i in range(20)]
    again = Reranker.from_pretrained(out, dtype="float32")
    assert again.cascade is not None
    assert again.cascade.sha256 == reranker.cascade.sha256
    found = again.margins("q", documents, cascade="fast", top_k=3)
    np.testing.assert_allclose(found, reranker.margins("q", documents, cascade="fast", top_k=3), atol=1e-5)
    manifest = read_manifest(out)
    assert manifest is not None
    assert "cascade.safetensors" in manifest.files
    assert again.weights_sha256 == Reranker.from_pretrained(out, dtype="float32").weights_sha256


def test_positions_stay_exact_in_bfloat16(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """An adapter in bfloat16 scores as the merged checkpoint does that it is saved to, and so does training."""
    import numpy as np
    from peft import LoraConfig, get_peft_model

    from prorank.model.checkpoint import save_checkpoint
    from prorank.training.refine.config import RefineConfig
    from prorank.training.setup import build_policy

    base = load_base(str(tiny_llama_dir))
    torch.manual_seed(0)
    lora = get_peft_model(base.model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))  # type: ignore[arg-type]
    manifest = Manifest(PRESETS["prorank"], (32, 33), base_name=str(tiny_llama_dir), base_sha256=base.sha256)
    adapter = save_checkpoint(tmp_path / "adapter", lora, base.tokenizer, manifest)
    reranker = Reranker.from_pretrained(adapter, dtype="bfloat16", device="cpu")
    again = Reranker.from_pretrained(reranker.save(tmp_path / "merged"), dtype="bfloat16", device="cpu")
    documents = [" ".join(f"word{i}" for i in range(n)) for n in (5, 50, 110)]
    np.testing.assert_array_equal(again.margins("query", documents), reranker.margins("query", documents))

    policy = build_policy(
        load_base(str(tiny_llama_dir)), reranker.encoder, RefineConfig(precision="bfloat16"), torch.device("cpu")
    )
    model = policy.model.get_base_model()
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
