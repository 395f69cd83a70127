"""Model cards that the hub reads, and folders that go there and come back: against its API on a local socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prorank import Reranker
from prorank.cli.main import main
from prorank.model.card import CardFacts, write_card
from prorank.model.checkpoint import built_in_rerankers
from prorank.model.hub import base_facts, hub_checkpoint
from prorank.model.manifest import Manifest, read_manifest
from testkit.hub_server import TOKEN, HubServer

hub = pytest.importorskip("huggingface_hub")

PAIRS = [("how do vaccines work", "vaccines train cells"), ("bread", "a town")]


def manifest() -> Manifest:
    found = read_manifest(built_in_rerankers()["prorank-smollm2-135m"])
    assert found is not None
    return found


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The hub's library talks to this server and keeps its files in a cache of the test's own."""
    running = HubServer()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", running.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield running
    running.stop()


def test_the_front_matter_of_each_kind_of_folder(tmp_path: Path) -> None:
    adapter = manifest()
    whole = replace(adapter, kind="model")
    kinds = {
        "adapter": (adapter, "peft", "adapter", "lora"),
        "whole": (whole, "sentence-transformers", "finetune", "cross-encoder"),
        "int8": (replace(whole, backend="native", precision="int8"), "prorank", "quantized", "int8"),
        "onnx": (replace(whole, backend="onnx", precision="float32"), "prorank", "finetune", "onnx"),
        "gguf": (replace(whole, backend="llamacpp", precision="float16"), "prorank", "finetune", "gguf"),
    }
    for name, (one, library, relation, tag) in kinds.items():
        (tmp_path / name).mkdir()
        card = hub.ModelCard.load(write_card(tmp_path / name, one, name=name))
        data = card.data.to_dict()
        assert data["pipeline_tag"] == "text-ranking"
        assert data["library_name"] == library
        assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert (data["base_model_relation"], data["license"]) == (relation, "apache-2.0")
        assert tag in data["tags"]
        assert {"prorank", "reranker"} <= set(data["tags"])
        assert "datasets" not in data
        assert f'from_pretrained("{name}")' in card.text
        assert "sigmoid(0.778 * margin +0.475)" in card.text


def test_what_the_caller_knows_goes_in_and_paths_stay_out(tmp_path: Path) -> None:
    local = replace(manifest(), base_name=str(tmp_path / "my-base"), base_sha256="0" * 64)
    facts = CardFacts("me/mine", "mit", ["BeIR/scifact"], ["en", "zh"])
    path = write_card(tmp_path, local, name=str(tmp_path / "x"), facts=facts)
    data = hub.ModelCard.load(path).data.to_dict()
    assert (data["license"], data["datasets"], data["language"]) == ("mit", ["BeIR/scifact"], ["en", "zh"])
    assert "base_model" not in data
    assert str(tmp_path) not in path.read_text("utf-8")
    of_hub = replace(local, base_name="Qwen/Qwen3-0.6B", base_sha256="commit:abc")
    assert hub.ModelCard.load(write_card(tmp_path, of_hub, name="x")).data.base_model == "Qwen/Qwen3-0.6B"
    assert base_facts("runs/warmup", "0" * 64).hub_id is None, "a folder of another day"
    with pytest.raises(ValueError, match="license: expected an identifier"):
        CardFacts(license="Apache License, Version 2")


def test_a_checkpoint_goes_to_the_hub_and_comes_back(server: HubServer, tiny_llama_dir: Path) -> None:
    ours = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=96)
    address = ours.push_to_hub("me/tiny", private=True, message="First", license="mit", datasets=["BeIR/scifact"])
    files = server.repositories["me/tiny"]
    assert address.startswith(f"{server.url}/me/tiny/commit/")
    assert (server.private["me/tiny"], server.messages) == (True, ["First"])
    assert {"README.md", "prorank.json", "model.safetensors", "modules.json"} <= set(files)
    card = hub.ModelCard(files["README.md"].decode())
    assert server.cards == [card.content], "the hub's own check was asked for"
    assert (card.data.license, card.data.datasets, card.data.pipeline_tag) == ("mit", ["BeIR/scifact"], "text-ranking")
    assert 'from_pretrained("me/tiny")' in card.text
    back = Reranker.from_pretrained("me/tiny", dtype="float32")
    assert (back.name, back.encoder.max_length) == ("tiny", 96)
    np.testing.assert_array_equal(back.score(PAIRS), ours.score(PAIRS))
    server.stop()
    again = Reranker.from_pretrained("me/tiny", dtype="float32", local_files_only=True)
    np.testing.assert_array_equal(again.score(PAIRS), ours.score(PAIRS))


@pytest.mark.usefixtures("server")
def test_the_hubs_refusals_are_one_line(tiny_llama_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours: Any = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=96)
    with pytest.raises(ValueError, match=r"repository: expected a repository of the hub \(owner/name\), got 'mine'"):
        ours.push_to_hub("mine")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ValueError, match=r"the hub did not take me/tiny: .*Invalid credentials"):
        ours.push_to_hub("me/tiny")
    assert hub_checkpoint("me/nothing-there") == "me/nothing-there"
    assert hub_checkpoint(str(tiny_llama_dir)) == str(tiny_llama_dir)


def test_export_uploads_what_it_wrote(
    server: HubServer, tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    command = ["export", "--model", str(tiny_llama_dir), "--to", "merged", "--out", str(out), "--parity-queries", "1"]
    assert main([*command, "--push", "me"]) == 2
    assert "--push: expected a repository of the hub (owner/name), got 'me'" in capsys.readouterr().err
    assert not out.exists(), "asked before anything is computed"
    assert main([*command, "--private"]) == 2
    assert "--private belongs to --push" in capsys.readouterr().err
    options = ["--max-length", "96", "--license", "mit", "--language", "en"]
    assert main([*command, *options, "--push", "me/merged"]) == 0
    assert f"{server.url}/me/merged/commit/" in capsys.readouterr().out
    files = server.repositories["me/merged"]
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert "parity.json" in files
    assert hub.ModelCard(files["README.md"].decode()).data.language == ["en"]
