"""An adapter whose base has changed is one line and exit code 2 in every command that loads it, never wrong scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from prorank.cli.main import main
from prorank.data.convert import convert
from prorank.model.base import load_base
from prorank.model.checkpoint import save_checkpoint
from prorank.model.manifest import Manifest
from prorank.prompt.derive import derive_template
from testkit.warmup import collection, make_base


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of a base that was replaced by another one under the same name; what to rank and train on."""
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("adapter")
    loaded = load_base(str(make_base(root / "first")))
    other = make_base(root / "base", seed=1)
    template = derive_template(loaded.tokenizer)
    labels = tuple(loaded.tokenizer.convert_tokens_to_ids(["0", "1"]))
    manifest = Manifest(template, labels, base_name=str(other), base_sha256=loaded.sha256)  # type: ignore[arg-type]
    lora = get_peft_model(loaded.model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    save_checkpoint(root / "adapter", lora, loaded.tokenizer, manifest)
    convert(collection(), root / "data", "beir")
    (root / "passages.txt").write_text("apple\nbear\n")
    return {name.partition(".")[0]: root / name for name in ("adapter", "base", "data", "passages.txt")}


@pytest.mark.parametrize(
    "words",
    [
        ["rank", "--model", "ADAPTER", "--query", "apple", "--documents", "PASSAGES"],
        ["rank", "--model", "BASE", "--adapter", "ADAPTER", "--query", "apple", "--documents", "PASSAGES"],
        ["evaluate", "--data", "DATA", "--model", "ADAPTER", "--out", "OUT"],
        ["analyze", "--data", "DATA", "--model", "ADAPTER", "--out", "OUT"],
        ["refine", "--data", "DATA", "--model", "ADAPTER", "--out", "OUT", "--device", "cpu"],
    ],
    ids=["rank", "rank --adapter", "evaluate", "analyze", "refine"],
)
def test_one_line_and_exit_code_2(
    folders: dict[str, Path], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {name.upper(): str(path) for name, path in folders.items()} | {"OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in words]) == 2
    found = capsys.readouterr()
    (error,) = [line for line in found.err.splitlines() if "error" in line]
    assert error.startswith(f"prorank {words[0]}: error: adapter adapter was trained on a base with sha256 ")
    assert error.endswith("its scores would be wrong")
    assert "Traceback" not in found.err
    assert found.out == ""
    assert not (tmp_path / "out" / "best").exists()
