"""The notebooks run from top to bottom, with a tiny model and few queries; git keeps none of what they print."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from testkit.warmup import make_base

REPO = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((REPO / "examples" / "notebooks").glob("*.ipynb"))
SMALLER = {
    '"--max-queries", "30"': '"--max-queries", "4", "--max-length", "320", "--device", "cpu"',
    '"smollm2-135m"': "default_model()",
}
"""What stands in a notebook -> what runs in its place."""


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_printed_is_kept(path: Path) -> None:
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.timeout(600)  # 20 s of computing; on a busy machine that takes its time
def test_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one kernel, which loads PyTorch once."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is part of the dependency group 'docs'")
    pytest.importorskip("ipykernel", reason="ipykernel is part of the dependency group 'docs'")
    import nbformat

    tiny = make_base(tmp_path / "tiny")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(REPO / "src"), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the models are too small to share
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    first = f"import prorank.reranker\ndefault_model = prorank.reranker.default_model = lambda: {str(tiny)!r}"
    cells = [nbformat.v4.new_code_cell(first)]
    for path in NOTEBOOKS:
        cells += nbformat.read(path, 4).cells
    for cell in cells:
        for there, instead in SMALLER.items():
            cell.source = cell.source.replace(there, instead)
    (tmp_path / "work").mkdir()
    client = nbclient.NotebookClient(
        nbformat.v4.new_notebook(cells=cells), timeout=500, kernel_name=kernel(tmp_path),
        resources={"metadata": {"path": str(tmp_path / "work")}},
    )  # fmt: skip
    ran = client.execute().cells
    told = "".join(output.get("text", "") for cell in ran for output in cell.get("outputs", []))
    assert "p = " in told, told
    assert "| refined |" in told


def kernel(folder: Path) -> str:
    """A kernel of this very interpreter, whatever else is installed."""
    spec = folder / "jupyter" / "kernels" / "this"
    spec.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "this", "language": "python"}))
    return "this"
