"""Work counted by hand, times put together, and the command on a tiny checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prorank import Reranker
from prorank.cli.main import main
from prorank.evaluate.speed import Speed, operations, own_peaks, precision_of, timed
from testkit.tiny_models import make_tiny


def test_operations_by_hand() -> None:
    """One layer, hidden 4, inner 8, 2 heads of 2, 1 key head: q 16, k 8, v 8, o 16, gate, up and down 32 each."""
    config = {
        "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }  # fmt: skip
    weights = 16 + 8 + 8 + 16 + 3 * 32
    assert operations(config, 0, [1]) == 2 * weights + 4 * 4 * 1
    # A prefix of 2 meets 1 + 2 keys; a document of 2 tokens on top of it 3 + 4; one of 1 token 3.
    assert operations(config, 2, [2, 1]) == 2 * weights * 5 + 4 * 4 * (1 + 2 + 3 + 4 + 3)
    assert operations({**config, "num_hidden_layers": 3}, 2, [2, 1]) == 3 * operations(config, 2, [2, 1])


def test_a_row_from_what_was_timed() -> None:
    row = Speed.of("m", "torch-cpu-bfloat16", [[1.0, 3.0], [2.0, 2.0], [5.0, 5.0]], 20, 1.0, 2.0, gflop=8.0, peak=10.0)
    assert row.repeats == (5.0, 5.0, 2.0)
    assert row.documents_per_second == 5.0
    assert row.latency_p50 == 2.5
    assert row.share_of_peak == pytest.approx(8.0 * 5.0 / 20 / 10.0)
    assert [precision_of(name) for name in ("openvino-cpu-int8", "torch-cpu-bfloat16", "x")] == [
        "int8", "bfloat16", "float32"
    ]  # fmt: skip
    seen: list[str] = []
    seconds = timed(lambda query, _: seen.append(query), [("a", ["x"]), ("b", ["y"])], 2)
    assert seen == ["a", "b", "a", "b"]
    assert [len(one) for one in seconds] == [2, 2]


def test_an_emulated_precision_has_no_peak() -> None:
    assert own_peaks({"float32": 99.7, "bfloat16": 2.4, "int8": 400.0}) == {"float32": 99.7, "int8": 400.0}


def test_command(base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    plain = make_tiny(tmp_path / "plain", "llama", AutoTokenizer.from_pretrained(base_folder))
    folder = Reranker.from_pretrained(plain, dtype="float32", max_length=160).save(tmp_path / "model")
    command = ["bench", "--queries", "2", "--documents", "3", "--repeats", "2", "--threads", "1", "--dtype", "float32"]
    assert main([*command, "--model", str(folder), "--record", str(tmp_path / "records.jsonl")]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["bench"]
    (row,) = found["rows"]
    assert found["documents"] == 6
    assert row["backend"] == "torch-cpu-float32"
    assert len(row["repeats"]) == 2
    assert row["gflop"] > 0
    assert (tmp_path / "records.jsonl").is_file()
    assert main([*command, "--model", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["bench", "--documents", "100000"]) == 2
    assert "--documents" in capsys.readouterr().err
