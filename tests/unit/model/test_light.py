"""What works without the extras: the package, and ranking with a built-in reranker, import no PyTorch."""

from __future__ import annotations

import errno
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from prorank import Reranker
from prorank.backends.native import engine as native_engine
from prorank.model import default_engine as engine
from testkit.native import runs_here
from testkit.small_texts import DOCUMENTS, QUERY

REPO = Path(__file__).resolve().parents[3]
BLOCKED = """
import importlib.metadata, sys
allowed = {names}
class Light:
    finders = list(sys.meta_path)
    def find_spec(self, name, path=None, target=None):
        module = name.partition(".")[0]
        if module not in allowed and module not in sys.stdlib_module_names and module != "prorank":
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)
    def find_distributions(self, *words):
        return importlib.metadata.MetadataPathFinder.find_distributions(*words)
sys.meta_path[:] = [Light()]
"""


def light_modules() -> set[str]:
    """Modules of what `pip install prorank` brings: its dependencies, and theirs."""
    declared = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    waiting, found = [re.split(r"[^\w.-]", line)[0] for line in declared], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in map(Requirement, importlib.metadata.requires(name) or []):
            if line.marker is None or line.marker.evaluate({"extra": ""}):
                waiting.append(line.name)
    assert not found & {"torch", "transformers", "peft", "scipy", "gguf"}
    homes = importlib.metadata.packages_distributions()
    named = {re.sub("[-_.]+", "-", name).lower() for name in found}
    return {
        module for module, homes_of in homes.items()
        if named & {re.sub("[-_.]+", "-", home).lower() for home in homes_of}
    }  # fmt: skip


def light(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python as if nothing but the default dependencies were installed."""
    script = BLOCKED.format(names=sorted(light_modules())) + code
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=250)


def test_importing_the_package_takes_no_extra() -> None:
    done = light(
        "import prorank\n"
        "from prorank import *\n"
        "import prorank.cli.main, prorank.cli.rank, prorank.cli.models, prorank.model.loading, prorank.serve\n"
        "print(sorted(m for m in ('torch', 'transformers', 'peft', 'httpx') if m in sys.modules))"
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@runs_here
def test_the_built_in_reranker_ranks_without_pytorch(base_folder: Path, tmp_path: Path) -> None:  # noqa: ARG001
    passages = REPO / "examples" / "passages.jsonl"
    rank = ["rank", "--query", "how do vaccines create immunity", "--documents", str(passages), "--format", "jsonl"]
    code = "from prorank.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    first = light(code, *rank, "--top-k", "3", "--verbose")
    assert first.returncode == 0, first.stderr
    assert "making the int8 model of prorank-smollm2-135m in the cache, once" in first.stderr
    assert "prorank-smollm2-135m runs on native-cpu" in first.stderr
    second = light(code, *rank, "--top-k", "3")
    assert (second.returncode, second.stdout, second.stderr) == (0, first.stdout, "")
    with_torch = Reranker.from_pretrained()
    assert with_torch.backend.name.startswith("native")
    for words, message in (
        (["--dtype", "float32"], "torch is not installed; it comes with: pip install 'prorank[torch]'"),
        (["--backend", "torch"], "torch is not installed; it comes with: pip install 'prorank[torch]'"),
        (["--device", "cuda"], "torch is not installed; it comes with: pip install 'prorank[torch]'"),
        (["--model", "smollm2-135m"], "pip install 'prorank[torch]'"),
        (["--model", "owner/model"], "pip install 'prorank[torch]'"),
    ):
        done = light(code, *rank, *words)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def cannot(*_: Any) -> None:
    raise ImportError("native: this processor has no avx512vl")


def unwritable() -> None:
    raise OSError(errno.EROFS, "Read-only file system", "native")


def test_pytorch_runs_where_it_is_asked_for_or_our_engine_cannot(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def chosen(name: str = "prorank-smollm2-135m", **options: Any) -> str:
        return engine.default_engine(name, **{"device": None, "dtype": None, **options})

    monkeypatch.setattr(engine, "check_engine", lambda: None)
    monkeypatch.setattr(engine, "_has_cuda", lambda: False)
    assert chosen() == chosen(device="cpu", dtype="auto") == "native"
    asked = [{"dtype": "float32"}, {"device": "cuda"}, {"device": "mps"}, {"share_prefix": False}, {"changed": True}]
    assert {chosen(**options) for options in asked} == {"torch"}  # type: ignore[arg-type]
    assert chosen("runs/mine") == "torch"
    monkeypatch.setattr(engine, "_has_cuda", lambda: True)
    assert (chosen(), chosen(device="cpu")) == ("torch", "native")
    monkeypatch.setattr(engine, "has_torch", lambda: False)
    assert chosen("runs/mine", changed=True) == "native"
    assert chosen(dtype="float32") == "torch"  # which then says what to install
    monkeypatch.setattr(engine, "check_engine", cannot)
    with pytest.raises(ImportError, match=r"no avx512vl; or let PyTorch run it: pip install 'prorank\[torch\]'"):
        chosen()
    monkeypatch.setattr(engine, "has_torch", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "check_engine", unwritable)
        assert chosen(device="cpu") == "torch"
        said = capsys.readouterr().err
        assert "compiled into the cache" in said
        assert "Read-only file system; PRORANK_CACHE names another folder; PyTorch runs" in said
    assert capsys.readouterr().err == ""
    assert chosen(device="cpu") == "torch"
    said = "prorank: native: this processor has no avx512vl; PyTorch runs prorank-smollm2-135m instead\n"
    assert capsys.readouterr().err == said


def test_a_processor_that_lacks_instructions_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_engine, "processor_features", lambda: frozenset())
    with pytest.raises(ImportError, match="native: this processor"):
        native_engine.check_engine()


@runs_here
def test_the_default_engine_means_the_same_as_pytorch(base_folder: Path) -> None:  # noqa: ARG001
    """Same prompts, excerpts, probabilities and read-outs; margins within int8's precision."""
    ours, theirs = Reranker.from_pretrained(), Reranker.from_pretrained(dtype="float32", device="cpu")
    assert (ours.backend.name, theirs.backend.name) == ("native-cpu-int8", "torch-cpu-float32")
    assert ours.calibration == theirs.calibration
    assert ours.weights_sha256 == theirs.weights_sha256
    assert ours.cascade is not None
    assert theirs.cascade is not None
    assert ours.cascade.sha256 == theirs.cascade.sha256
    long = " ".join(f"Sentence {i} is about towns, bread and markets." for i in range(80)) + " Vaccines train cells."
    documents = [*DOCUMENTS, long]
    assert ours.encoder.long_documents == "excerpt"
    assert ours.encode(QUERY, documents) == theirs.encode(QUERY, documents)
    got, wanted = ours.margins(QUERY, documents), theirs.margins(QUERY, documents)
    assert np.abs(got - wanted).mean() <= 0.05 * wanted.std()
    assert got.argmax() == wanted.argmax()
    results = ours.rank(QUERY, documents, top_k=3)
    np.testing.assert_allclose(ours.probability([r.margin for r in results]), [r.probability for r in results])
    fast = ours.rank(QUERY, documents, top_k=3, cascade="fast")
    assert fast[0].doc_id == results[0].doc_id
    with pytest.raises(ValueError, match="load with backend 'torch'"):
        ours.save("folder")
