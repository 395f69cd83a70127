"""The average of adapters: merged, it is the mean of the merged weights; what may not be averaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prorank.cli.main import main
from prorank.model.adapter import merge_adapter
from prorank.model.average import average_adapters
from prorank.model.base import BaseError, load_base
from prorank.model.checkpoint import save_checkpoint
from prorank.model.manifest import Manifest, read_manifest
from prorank.prompt.derive import derive_template
from prorank.prompt.encoder import PromptEncoder
from testkit.warmup import make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "base")


def adapter(base: Path, folder: Path, seed: int, *, rank: int = 2, **settings: Any) -> Path:
    """A random adapter as refine saves it."""
    from peft import LoraConfig, get_peft_model

    loaded = load_base(str(base))
    torch.manual_seed(seed)
    options = {"target_modules": "all-linear", "lora_alpha": 3.0 * rank, **settings}
    model = get_peft_model(loaded.model, LoraConfig(r=rank, task_type="CAUSAL_LM", **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    encoder = PromptEncoder(loaded.tokenizer, derive_template(loaded.tokenizer))
    manifest = Manifest(
        encoder.template, encoder.label_ids, base_name=str(base), base_sha256=loaded.sha256, stage="refine",
        calibration=(1.0, 0.5),
    )  # fmt: skip
    save_checkpoint(folder, model, loaded.tokenizer, manifest)
    return folder


def merged(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    return merge_adapter(load_base(str(base)).model, folder).state_dict()


def test_merged_it_is_the_mean_of_the_merged_weights(base: Path, tmp_path: Path) -> None:
    one = adapter(base, tmp_path / "one", 1)
    other = adapter(base, tmp_path / "other", 2, rank=3, use_rslora=True)
    assert main(["average", str(one), str(other), "--out", str(tmp_path / "average")]) == 0
    found = merged(base, tmp_path / "average")
    weights = [merged(base, folder) for folder in (one, other)]
    plain = load_base(str(base)).model.state_dict()
    changed = 0
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (weights[0][name] + weights[1][name]) / 2, atol=1e-6, rtol=1e-5)
        changed += not torch.equal(tensor, plain[name])
    assert changed > 5
    manifest = read_manifest(tmp_path / "average")
    assert manifest is not None
    assert manifest.calibration is None
    assert len(manifest.config["average_of"]) == 2
    assert json.loads((tmp_path / "average" / "adapter_config.json").read_text())["r"] == 5


def test_what_cannot_be_averaged_is_named(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = adapter(base, tmp_path / "one", 1)
    with pytest.raises(BaseError, match="at least two adapters, got 1"):
        average_adapters([one], tmp_path / "out")
    with pytest.raises(BaseError, match="adapt different layers"):
        average_adapters([one, adapter(base, tmp_path / "few", 1, target_modules=["q_proj"])], tmp_path / "out")
    with pytest.raises(BaseError, match="more than plain LoRA"):
        average_adapters([one, adapter(base, tmp_path / "dora", 1, use_dora=True)], tmp_path / "out")
    elsewhere = make_base(tmp_path / "base2", seed=1)
    with pytest.raises(BaseError, match="differ in base_sha256"):
        average_adapters([one, adapter(elsewhere, tmp_path / "elsewhere", 1)], tmp_path / "out")
    assert main(["average", str(one), str(base), "--out", str(tmp_path / "out")]) == 2
    assert "is no prorank checkpoint with an adapter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
