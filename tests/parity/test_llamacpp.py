"""The llama.cpp backend against PyTorch on the same weights, against plain llama.cpp, and against itself in company."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from prorank.backends.llamacpp import LlamaCppBackend
from prorank.backends.torch import TorchBackend
from prorank.export.gguf import Quantisation, write_gguf
from prorank.model.base import load_base
from prorank.scoring import margins_of, score_groups
from prorank.types import EncodedGroup
from testkit.tiny_models import make_tiny
from testkit.tiny_tokenizers import RULES, TEXTS, tiny_tokenizer

llama_cpp = pytest.importorskip(
    "llama_cpp", reason="llama-cpp-python is not installed (pip install 'prorank[llamacpp]' compiles it for minutes)"
)

# Random weights are drawn so wide that margins spread over 10 and rounding shows; logits may differ by this much.
TOLERANCES = {
    ("f32", "f32"): 2e-4,
    ("f32", "f16"): 0.1,  # keys, values and what attention adds up, in float16
    ("f16", "f32"): 0.1,  # llama.cpp rounds activations to the weights' float16
    ("f16", "f16"): 0.2,
    ("q8_0", "f32"): 1.5,  # and to 8 bits, in blocks of 32: here, a whole row of 32
}
ALONE = {"f32": 1e-4, "f16": 0.1}
"""How far a logit may move with its company, by attention."""


class Tiny(NamedTuple):
    model: Any
    tokenizer: Any
    labels: tuple[int, int]
    folder: Path

    def gguf(self, quantisation: Quantisation) -> Path:
        file = self.folder / f"{quantisation}.gguf"
        return file if file.is_file() else write_gguf(self.model, self.tokenizer, file, quantisation=quantisation)


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def any_tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return _tiny(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return _tiny("llama", tmp_path_factory.mktemp("tiny-llama"))


def _tiny(architecture: str, folder: Path) -> Tiny:
    tokenizer = tiny_tokenizer()
    model = load_base(str(make_tiny(folder / "model", architecture, tokenizer))).model
    return Tiny(model, tokenizer, (tokenizer.encode("0")[0], tokenizer.encode("1")[0]), folder)


@pytest.fixture(scope="module")
def backend(tiny: Tiny) -> Iterator[LlamaCppBackend]:
    with LlamaCppBackend(tiny.gguf("f32"), tiny.labels, threads=1) as opened:
        yield opened


def group(seed: int = 0, prefix: int = 40, lengths: tuple[int, ...] = (5, 70, 1, 33, 200, 64, 17, 90)) -> EncodedGroup:
    rng = np.random.default_rng(seed)
    draw = lambda n: [int(i) for i in rng.integers(0, 400, n)]  # noqa: E731
    return EncodedGroup(draw(prefix), [draw(n) for n in lengths], prefix // 2)


def rounded(model: Any, quantisation: Quantisation) -> Any:
    """The model with the weights that the file holds."""
    model = copy.deepcopy(model)
    for weight in model.parameters():
        if weight.ndim > 1 and quantisation == "f16":
            weight.data = weight.data.half().float()
        elif weight.ndim > 1 and quantisation == "q8_0":
            blocks = weight.data.unflatten(-1, (-1, 32))
            scale = (blocks.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-9)  # a row of zeros stays one
            weight.data = ((blocks / scale).round() * scale.half().float()).flatten(-2)
    return model


@pytest.mark.parametrize(("quantisation", "attention"), list(TOLERANCES))
def test_equals_torch_on_the_same_weights(any_tiny: Tiny, quantisation: Quantisation, attention: Any) -> None:
    file = any_tiny.gguf(quantisation)
    wanted = TorchBackend(rounded(any_tiny.model, quantisation), any_tiny.labels).label_logits(group())
    assert margins_of(wanted).std() > 1, "the random model must tell rows apart"
    with LlamaCppBackend(file, any_tiny.labels, threads=1, attention=attention) as backend:
        assert backend.name == f"llamacpp-{quantisation}"
        got = backend.label_logits(group())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=TOLERANCES[quantisation, attention])


def test_equals_plain_llama_cpp_one_prompt_at_a_time(tiny: Tiny, backend: LlamaCppBackend) -> None:
    rows = group()
    plain = llama_cpp.Llama(
        str(tiny.gguf("f32")), n_ctx=512, n_batch=512, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
        flash_attn=False, type_k=0, type_v=0,
    )  # fmt: skip
    wanted = []
    for own in rows.own_ids:
        plain.reset()
        plain.eval([*rows.prefix_ids, *own])
        wanted.append(plain.scores[plain.n_tokens - 1, list(tiny.labels)])
    plain.close()
    np.testing.assert_allclose(backend.label_logits(rows), np.array(wanted), atol=1e-4)


@pytest.mark.parametrize("attention", ["f32", "f16"])
def test_company_does_not_matter(tiny: Tiny, attention: Any) -> None:
    rows = group()
    with LlamaCppBackend(tiny.gguf("f32"), tiny.labels, threads=1, attention=attention) as backend:
        together = backend.label_logits(rows)
        order = np.random.default_rng(1).permutation(len(rows.own_ids))
        shuffled = backend.label_logits(rows._replace(own_ids=[rows.own_ids[i] for i in order]))
        np.testing.assert_allclose(shuffled, together[order], atol=ALONE[attention], err_msg="order")
        alone = np.concatenate([backend.label_logits(rows._replace(own_ids=[own])) for own in rows.own_ids])
        np.testing.assert_allclose(alone, together, atol=ALONE[attention], err_msg="batch")
        whole = EncodedGroup([], [[*rows.prefix_ids, *own] for own in rows.own_ids])
        np.testing.assert_allclose(backend.label_logits(whole), together, atol=ALONE[attention], err_msg="prefix")
    with LlamaCppBackend(tiny.gguf("f32"), tiny.labels, threads=1, context=241, attention=attention) as small:
        np.testing.assert_allclose(small.label_logits(rows), together, atol=ALONE[attention], err_msg="context")


def test_more_rows_than_sequences(backend: LlamaCppBackend) -> None:
    rows = group(seed=2, lengths=tuple(1 + i % 4 for i in range(100)))
    alone = np.concatenate([backend.label_logits(rows._replace(own_ids=[own])) for own in rows.own_ids])
    np.testing.assert_allclose(backend.label_logits(rows), alone, atol=ALONE["f32"])


def test_prefixes_of_other_queries_leave_nothing_behind(tiny: Tiny, backend: LlamaCppBackend) -> None:
    first, shorter = group(), group()._replace(prefix_ids=group().prefix_ids[:25])
    forked = first._replace(prefix_ids=[*first.prefix_ids[:20], *group(seed=3).prefix_ids])
    reference = TorchBackend(tiny.model, tiny.labels)
    for rows in (first, group(seed=4), forked, shorter, first._replace(prefix_ids=[]), first):
        np.testing.assert_allclose(backend.label_logits(rows), reference.label_logits(rows), atol=2e-4)
    groups = [first, group(seed=4, lengths=(3, 4)), forked, group(seed=5, lengths=(9,))]
    for ours, theirs in zip(score_groups(backend, groups), score_groups(reference, groups), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=4e-4)


def test_a_prefix_is_decoded_once(tiny: Tiny) -> None:
    rows = group()
    own = sum(map(len, rows.own_ids))
    with LlamaCppBackend(tiny.gguf("f32"), tiny.labels, threads=1) as backend:
        assert backend.capabilities.shares_prefixes
        backend.label_logits(rows)
        assert backend.decoded_tokens == 40 + own
        backend.label_logits(rows)
        assert backend.decoded_tokens == 40 + 2 * own, "the same query again"
        other = [*rows.prefix_ids[:20], *((i + 1) % 400 for i in rows.prefix_ids[20:])]
        backend.label_logits(rows._replace(prefix_ids=other))
        assert backend.decoded_tokens == 40 + 20 + 3 * own, "another query, the same instruction"


def test_no_rows(backend: LlamaCppBackend) -> None:
    assert backend.label_logits(EncodedGroup([1, 2], [])).shape == (0, 2)


def test_files_that_are_no_model_are_named(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.gguf: no such file"):
        LlamaCppBackend(tmp_path / "absent.gguf", tiny.labels)
    (tmp_path / "text.gguf").write_text("not a model")
    with pytest.raises(ValueError, match="not a GGUF file"):
        LlamaCppBackend(tmp_path / "text.gguf", tiny.labels)
    content = tiny.gguf("f32").read_bytes()
    for kept in (len(content) - 1000, len(content) // 2, 200):
        (tmp_path / "cut.gguf").write_bytes(content[:kept])
        with pytest.raises(ValueError, match=r"cut\.gguf: llama\.cpp cannot load it; .* \(llama\.cpp: "):
            LlamaCppBackend(tmp_path / "cut.gguf", tiny.labels)


def test_limits_are_named(tiny: Tiny) -> None:
    file = tiny.gguf("f32")
    with pytest.raises(ValueError, match=r"vocabulary has 400 tokens, and the label ids are \(18, 400\)"):
        LlamaCppBackend(file, (18, 400))
    for options, message in (
        ({"threads": 0}, "threads must be at least 1"),
        ({"context": 0}, "context must be at least 2"),
        ({"attention": "bf16"}, "attention must be"),
    ):
        with pytest.raises(ValueError, match=message):
            LlamaCppBackend(file, tiny.labels, **options)
    with LlamaCppBackend(file, tiny.labels, threads=1, context=64) as backend:
        assert backend.max_positions == 64
        rows = group(prefix=40, lengths=(24, 25))
        with pytest.raises(ValueError, match=r"own_ids\[1\]: prompt of 40 \+ 25 tokens, but the context holds 64"):
            backend.label_logits(rows)
        with pytest.raises(ValueError, match=r"own_ids\[0\] is empty"):
            backend.label_logits(EncodedGroup([1], [[]]))
        with pytest.raises(ValueError, match="token ids must lie in 0 to 399, got 3 to 400"):
            backend.label_logits(EncodedGroup([1], [[3, 400]]))
        fits = backend.label_logits(rows._replace(own_ids=rows.own_ids[:1]))
        wanted = TorchBackend(tiny.model, tiny.labels).label_logits(rows)[:1]
        np.testing.assert_allclose(fits, wanted, atol=2e-4, err_msg="it goes on after errors")
    with LlamaCppBackend(file, tiny.labels, threads=1, context=4096) as backend:
        assert backend.max_positions == tiny.model.config.max_position_embeddings == 2048


def test_close_frees_memory(tiny: Tiny) -> None:
    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").is_file():
        pytest.skip("the process's memory is read from /proc")
    size = 100_000  # 2 layers of keys and values of 16 float32 for each: 25 MB
    backend = LlamaCppBackend(tiny.gguf("f32"), tiny.labels, threads=1, context=size)
    backend.close()
    before = resident()
    for _ in range(6):
        backend = LlamaCppBackend(tiny.gguf("f32"), tiny.labels, threads=1, context=size)
        backend.label_logits(group())
        backend.close()
        backend.close()
    assert resident() - before < 75 << 20, "six caches of 25 MB each"
    with pytest.raises(RuntimeError, match="closed"):
        backend.label_logits(group())


@pytest.mark.parametrize("rules", [*RULES, "fallback"])
def test_llama_cpp_reads_the_written_tokenizer(tmp_path: Path, rules: Any) -> None:
    tokenizer = tiny_tokenizer(rules)
    torch.manual_seed(0)
    model = load_base(str(make_tiny(tmp_path / "model", "llama", tokenizer))).model
    file = write_gguf(model, tokenizer, tmp_path / "tiny.gguf", quantisation="f32")
    reader = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    texts = [*TEXTS, "unseen Wörter 漢字 🙂 1999\n\n  12", " leading"]
    for text in texts:
        ids = reader.tokenize(text.encode(), add_bos=False, special=False)
        assert ids == tokenizer.encode(text, add_special_tokens=False), text
    assert reader.token_eos() == tokenizer.eos_token_id
    reader.close()


@pytest.mark.parametrize(("target", "tolerance"), [("gguf", 0.15), ("gguf-q8", 0.5)])
def test_an_exported_folder_scores_as_its_checkpoint(
    tiny_llama_dir: Path, tmp_path: Path, target: str, tolerance: float
) -> None:
    from prorank import Reranker
    from prorank.export.targets import export

    reference = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=160)
    documents = [*TEXTS, "", "word " * 300]
    wanted = reference.margins("what is 42?", documents)
    exported = Reranker.from_pretrained(export(reference, target, tmp_path / target), threads=1)
    assert isinstance(exported.backend, LlamaCppBackend)
    got = exported.margins("what is 42?", documents)
    assert np.abs(got - wanted).max() <= tolerance * max(1.0, float(wanted.std()))
    alone = np.concatenate([exported.margins("what is 42?", [text]) for text in documents])
    np.testing.assert_allclose(alone, got, atol=1e-3)
