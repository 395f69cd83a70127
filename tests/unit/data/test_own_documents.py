"""A document with the query's own id (ArguAna, Quora) is no candidate, no negative and in no measure: BEIR's rule."""

from __future__ import annotations

import json

import pytest
from benchmarks.runs.padded_lists import padded_lists

from prorank.cli.main import main
from prorank.data import first_stage, load_collection, write_run
from prorank.data.negatives import mine_negatives
from prorank.data.trec import read_run

pytest.importorskip("bm25s")
pytest.importorskip("ir_measures")

N = 12


@pytest.fixture
def arguana(tmp_path):
    """Every query a0..a11 is a document of the collection; its counter argument c0..c11 is relevant."""
    folder = tmp_path / "arguana"
    (folder / "qrels").mkdir(parents=True)
    texts = {f"a{i}": f"Argument {i} that schools should ban phones because reason {i + 10}" for i in range(N)}
    texts |= {f"c{i}": f"Counter {i} phones in schools are fine because reason {i % 3 + 10}" for i in range(N)}
    rows = [json.dumps({"_id": d, "title": "", "text": text}) for d, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "queries.jsonl").write_text("\n".join(rows[:N]) + "\n")
    lines = ["query-id\tcorpus-id\tscore", *(f"a{i}\tc{i}\t1" for i in range(N))]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("spec", ["bm25", "padded", "run"])
def test_lists_are_full_and_without_the_own_document(arguana, tmp_path, spec):
    kept = load_collection(arguana, own_documents="keep")
    full = first_stage("bm25", kept, 6)
    assert all(query_id in full[query_id] for query_id in full)
    if spec == "run":
        spec = str(tmp_path / "given.trec")
        write_run(spec, full)
    dropped = load_collection(arguana)
    run = padded_lists(dropped, 5) if spec == "padded" else first_stage(spec, dropped, 5)
    assert [len(listed) for listed in run.values()] == [5] * N
    assert not any(query_id in listed for query_id, listed in run.items())
    assert list(run["a1"]) == [d for d in full["a1"] if d != "a1"][:5]


def test_only_beir_folders_drop_by_themselves(arguana, tmp_path):
    from prorank.data.convert import convert

    assert load_collection(arguana).own_documents == {f"a{i}" for i in range(N)}
    convert(load_collection(arguana), tmp_path / "trec", "trec")
    assert load_collection(tmp_path / "trec").own_documents == frozenset()
    assert len(load_collection(tmp_path / "trec", own_documents="drop").own_documents) == N
    with pytest.raises(ValueError, match="own-documents: expected keep or drop, got 'leave'"):
        load_collection(arguana, own_documents="leave")


@pytest.mark.parametrize("rule", ["drop", "keep"])
def test_evaluate_equals_beirs_rule(arguana, tiny_llama_dir, tmp_path, capsys, rule):
    """BEIR's evaluation takes the document with the query's id out of every list, then asks pytrec_eval."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    out, given = tmp_path / "out", tmp_path / "given.trec"
    everything = first_stage("bm25", load_collection(arguana, own_documents="keep"), 10)
    write_run(given, everything)
    flags = ["--data", str(arguana), "--model", str(tiny_llama_dir), "--dtype", "float32", "--top-k", "10"]
    flags += ["--baseline", f"run:{given}", "--measures", "nDCG@10", "R@100", "--out", str(out)]
    assert main(["evaluate", *flags, *(["--own-documents", "keep"] if rule == "keep" else [])]) == 0
    said = capsys.readouterr().err
    record = json.loads((out / "record.jsonl").read_text())
    assert ("12 of 12 queries are documents of the collection" in said) == (rule == "drop")
    assert ("12 of 12 queries are documents" in (out / "report.md").read_text()) == (rule == "drop")
    assert record["dataset"]["own_documents"] == rule
    assert record["dataset"]["own_documents_left_out"] == (N if rule == "drop" else 0)
    qrels = {f"a{i}": {f"c{i}": 1} for i in range(N)}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100"})
    for system, run in zip(record["systems"], (read_run(out / "bm25.trec"), None, everything), strict=True):
        run = read_run(out / f"{system['name']}.trec") if run is None else run
        if rule == "drop":
            run = {q: {d: s for d, s in listed.items() if d != q} for q, listed in run.items()}
        ranks = {q: {d: float(-place) for place, d in enumerate(listed)} for q, listed in run.items()}
        values = evaluator.evaluate(ranks).values()
        ndcg, recall = (sum(v[name] for v in values) / N for name in ("ndcg_cut_10", "recall_100"))
        assert system["measures"]["nDCG@10"]["mean"] == pytest.approx(ndcg)
        assert system["measures"]["R@100"]["mean"] == pytest.approx(recall)
        assert any(q in read_run(out / f"{system['name']}.trec")[q] for q in qrels) == (rule == "keep")


def test_the_api_drops_them_from_lists_that_are_handed_over(arguana, tmp_path):
    from prorank.evaluate.evaluation import Peer, evaluate
    from prorank.evaluate.results import Options

    run = first_stage("bm25", load_collection(arguana, own_documents="keep"), 10)
    options = Options(measures=["nDCG@10"], resamples=10, permutations=10)
    result = evaluate(load_collection(arguana), run, [Peer(None, ("peer", run))], tmp_path / "out", options=options)
    assert not any(q in row.outcome.run[q] for row in result.rows for q in row.outcome.run)


def test_no_training_list_holds_the_own_document(arguana):
    from prorank.training.refine.config import RefineConfig
    from prorank.training.refine.lists import ListSource
    from prorank.training.warmup.config import WarmupConfig
    from prorank.training.warmup.prompts import PromptSampler

    handed = first_stage("bm25", load_collection(arguana, own_documents="keep"), 20)
    collection = load_collection(arguana)
    sampler = PromptSampler(collection, WarmupConfig(negatives=8, hard_negatives=4, held_out=0.3), handed)
    prompts = [sampler.draw(i, hard=True) for i in range(60)] + sampler.held_out()
    assert not any(prompt.query in prompt.documents for prompt in prompts)
    lists = ListSource(collection, RefineConfig(list_size=12, hard_negatives=6), candidates=handed)
    assert not any(drawn.query in drawn.documents for drawn in (lists.draw(i, 6) for i in range(60)))
    assert not any(q in negatives for q, negatives in mine_negatives(collection, handed).items())


def test_no_prompt_of_an_analysis_asks_about_the_own_document(arguana):
    from prorank.evaluate.analyze import draw_sample

    handed = first_stage("bm25", load_collection(arguana, own_documents="keep"), 20)
    for negatives in ("first-stage", "random"):
        sample = draw_sample(load_collection(arguana), handed, pairs=400, queries=12, negatives=negatives)
        assert not any(pair.query_id == pair.doc_id for pair in sample.pairs)
        assert not any(q in listed for q, listed in sample.lists.items())


@pytest.mark.parametrize("out", ["lists.jsonl", "lists.trec"])
@pytest.mark.parametrize("command", ["mine", "mine with a model", "teach"])
def test_mine_and_teach_leave_them_out(arguana, tiny_llama_dir, tmp_path, capsys, command, out):
    flags = ["--data", str(arguana), "--out", str(tmp_path / out), "--top-k", "6"]
    if command == "teach":
        if out.endswith(".trec"):
            pytest.skip("teach writes lists")
        assert main(["teach", *flags, "--teacher", "bm25"]) == 0
    else:
        assert main(["mine", *flags, *(["--model", str(tiny_llama_dir)] if "model" in command else [])]) == 0
    assert "left out of their lists" in capsys.readouterr().err
    if out.endswith(".trec"):
        assert not any(q in listed for q, listed in read_run(tmp_path / out).items())
    else:
        for line in (tmp_path / out).read_text().splitlines():
            row = json.loads(line)
            assert row["query"] not in [document["text"] for document in row["documents"]]


def test_judged_own_documents_and_equal_texts_are_pointed_out(arguana, tmp_path, capsys):
    from prorank.data.convert import convert

    with (arguana / "qrels" / "test.tsv").open("a") as file:
        file.write("a0\ta0\t1\n")
    flags = ["--out", str(tmp_path / "c.trec"), "--top-k", "3"]
    assert main(["mine", "--data", str(arguana), *flags]) == 0
    assert "warning: 1 of them are judged relevant" in capsys.readouterr().err
    convert(load_collection(arguana), tmp_path / "trec", "trec")
    assert main(["mine", "--data", str(tmp_path / "trec"), *flags]) == 0
    assert "12 queries are documents of the collection, with the same id and text; --own-documents drop" in (
        capsys.readouterr().err
    )
