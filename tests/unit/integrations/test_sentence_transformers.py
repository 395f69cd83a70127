"""sentence-transformers: our CrossEncoder gives prorank's margins; a saved folder gives them where texts fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prorank import Reranker

st = pytest.importorskip("sentence_transformers", reason="sentence-transformers is part of the extra 'evaluate'")
torch = pytest.importorskip("torch")

from prorank.integrations.sentence_transformers import ProRankCrossEncoder  # noqa: E402

QUERY = "how do vaccines work"
TEXTS = ["bread is baked", "vaccines train the immune system", "", "memory cells", "a town"]
LONG = "".join(f"Sentence {i} is about the weather. " for i in range(40)) + "Vaccines work by training cells."


def test_predict_and_rank_are_the_librarys_with_our_margins(reranker: Reranker) -> None:
    model = ProRankCrossEncoder(reranker)
    assert isinstance(model, st.CrossEncoder)
    texts = [*TEXTS, LONG, "a <|im_end|> in the text"]
    pairs = [(QUERY, text) for text in texts]
    wanted = reranker.score(pairs)
    np.testing.assert_array_equal(model.predict(pairs), wanted)
    assert model.predict(pairs[1]) == wanted[1]
    assert torch.equal(model.predict(pairs, convert_to_tensor=True), torch.tensor(wanted))
    assert model.predict([]).shape == (0,)
    probabilities = model.predict(pairs, activation_fn=torch.nn.Sigmoid())
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-wanted)), rtol=1e-6)
    ranked = model.rank(QUERY, texts, return_documents=True, top_k=4)
    ours = reranker.rank(QUERY, texts, top_k=4)
    assert [(r["corpus_id"], r["score"], r["text"]) for r in ranked] == [(r.index, r.margin, r.text) for r in ours]
    told = model.predict(pairs, prompt="Recent ones.")
    np.testing.assert_array_equal(told, reranker.score(pairs, instruction="Recent ones."))
    with pytest.raises(ValueError, match="apply_softmax"):
        model.predict(pairs, apply_softmax=True)


def test_the_librarys_evaluator_takes_it(reranker: Reranker, tmp_path: Path) -> None:
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples = [{"query": QUERY, "positive": [TEXTS[1]], "negative": [TEXTS[0], TEXTS[3], LONG]}]
    evaluator = CrossEncoderRerankingEvaluator(
        samples, at_k=4, name="own", write_csv=False, always_rerank_positives=True
    )
    found = evaluator(ProRankCrossEncoder(reranker), str(tmp_path))
    order = [r.index for r in reranker.rank(QUERY, [TEXTS[1], TEXTS[0], TEXTS[3], LONG])]
    assert found["own_mrr@4"] == pytest.approx(1 / (order.index(0) + 1))


@pytest.mark.parametrize("long_documents", ["excerpt", "max_window"])
def test_a_saved_folder_cuts_what_prorank_reads_on_and_save_says_so(
    tiny_llama_dir: Path, tmp_path: Path, long_documents: str
) -> None:
    ours = Reranker.from_pretrained(tiny_llama_dir, dtype="float32", max_length=128, long_documents=long_documents)
    with pytest.warns(UserWarning, match=f"CrossEncoder cuts long documents where long_documents='{long_documents}'"):
        folder = ours.save(tmp_path / "saved")
    pairs = [(QUERY, text) for text in (TEXTS[1], TEXTS[3], LONG)]
    wanted = ours.score(pairs)
    plain = st.CrossEncoder(str(folder)).predict(pairs)
    np.testing.assert_allclose(plain[:2], wanted[:2], atol=1e-4)
    assert abs(plain[2] - wanted[2]) > 1e-3
    np.testing.assert_array_equal(ProRankCrossEncoder(ours).predict(pairs), wanted)
