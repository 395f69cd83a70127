"""Pages are as the committed records are; the results page and the model card say what synthetic ones hold."""

from __future__ import annotations

import hashlib
import json

import pytest
from benchmarks.tables import card as card_tables
from benchmarks.tables import engine as engine_tables
from benchmarks.tables import evaluate as evaluate_tables
from benchmarks.tables import records as results_records
from benchmarks.tables import results as results_tables
from benchmarks.tables import serve as serve_tables
from benchmarks.tables import writer as tables

SCRIPTS = (evaluate_tables, serve_tables, results_tables, card_tables, engine_tables)
# warmup_tables has its test in test_warmup_recipes.py
BASE_SHA256, ADAPTER_SHA256 = "b" * 64, "a" * 64
WEIGHTS = hashlib.sha256(f"{BASE_SHA256}\n{ADAPTER_SHA256}".encode()).hexdigest()
SHARED = {
    "time": "2026-01-02T03:04:05+00:00", "commit": "c" * 40, "dirty": False,
    "environment": {"cpu": "a processor", "cores": 2},
}  # fmt: skip
RECIPE = """
teacher = "fused"
test = ["somewhere/scifact:test"]
[[datasets]]
path = "somewhere/msmarco-sample"
weight = 3.0
[[datasets]]
path = "somewhere/nfcorpus"
split = "train"
[warmup]
steps = 7
[refine]
mixture_alpha = 0.0
learning_rate = 2e-4
[[blocks]]
name = "first"
steps = 11
document_tokens = 48
losses = ["kl=1"]
[[blocks]]
name = "second"
steps = 13
document_tokens = 80
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_committed_pages_are_as_the_records_are(script):
    for page, functions in script.PAGES.items():
        text = page.read_text("utf-8")
        assert tables.filled(text, functions) == text, f"{page.name}: run make docs"
        assert set(functions) == set(tables.re.findall(r"<!-- table (\w+) -->", text))


def test_a_table_that_nothing_writes_is_an_error():
    with pytest.raises(ValueError, match="table new -->: nothing writes it"):
        tables.filled("<!-- table new --><!-- end -->", {"old": str})


def interval(mean, **more):
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, **more}


def system(name, mean, against_bm25=None, weights=WEIGHTS):
    """One system of a record; ``against_bm25`` is (difference, corrected p)."""
    versus = {}
    if against_bm25 is not None:
        versus = {"bm25": {"nDCG@10": interval(against_bm25[0], p_holm=against_bm25[1])}}
    return {
        "name": name,
        "description": {"weights_sha256": weights},
        "measures": {"nDCG@10": interval(mean)},
        "versus": versus,
        "cost": {"p50_s": 1.5, "p95_s": 2.5, "pairs_per_s": 40.0} if name == "refined" else {"p50_s": None},
        "peak_memory_mib": {"process": 900.0},
    }


def result(weights=WEIGHTS):
    """Better than BM25 on one collection, worse on another, neither on the third."""
    found = {"nfcorpus": (0.1, 0.001), "scifact": (-0.2, 0.002), "dl19": (0.01, 0.5)}
    collections = [
        {
            "dataset": {"name": name, "queries": 100},
            "systems": [system("bm25", 0.5), system("refined", 0.5 + tested[0], tested, weights)],
        }
        for name, tested in found.items()
    ]
    average = {
        "bm25": interval(0.5, versus={}),
        "refined": interval(0.47, versus={"bm25": interval(-0.03, p_holm=0.04)}),
    }
    settings = {"queries": 100, "max_length": 0, "dtype": "float32", "collections": list(found)}
    return {**SHARED, "kind": "results", "settings": settings, "collections": collections, "average": average}


def stage(name, value, weights=WEIGHTS):
    return {
        **SHARED, "kind": "stages", "stage": name, "prompts": 40,
        "dataset": {"name": "nfcorpus"},
        "sample": {"pairs": 40, "queries": 2, "top_k": 3, "seed": 0},
        "description": {"backend": "torch-cpu-float32", "weights_sha256": weights},
        "understanding": {
            key: {"value": value, "low": value - 0.1, "high": value + 0.1} for key in results_tables.UNDERSTANDING
        },
        "expressiveness": {"spread": 2 * value, "tie_rate": 0.0},
    }  # fmt: skip


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Records, recipe and package of the test's own; the files to write to."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(results_records, "MODELS", tmp_path / "models")
    monkeypatch.setattr(card_tables, "RECIPE", tmp_path / "recipe.toml")
    return tmp_path


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def ship(folder, **changes):
    target = folder / "models" / results_records.NAME
    target.mkdir(parents=True)
    manifest = {
        "base_name": "smollm2-135m", "base_sha256": BASE_SHA256, "files": {"adapter_model.safetensors": ADAPTER_SHA256},
        "stage": "refine", "created": "2026-01-01", "commit": "d" * 40, "max_length": 192,
        "long_documents": "truncate",
        "template": {"name": "prorank"}, "calibration": None,
        "config": {"refine": {"steps": 13, "document_tokens": 80, "mixture_alpha": 0.0, "learning_rate": 2e-4}},
    }  # fmt: skip
    (target / "prorank.json").write_text(json.dumps({**manifest, **changes}))
    (target / "adapter_config.json").write_text('{"r": 32}')
    (target / "adapter_model.safetensors").write_bytes(bytes(2_500_000))


def every(script):
    return {name: function() for functions in script.PAGES.values() for name, function in functions.items()}


def test_without_records_every_table_says_so(repository):
    del repository
    texts = {**every(results_tables), **every(card_tables)}
    assert "does not come with the package yet" in texts.pop("facts")
    assert texts.pop("data") == texts.pop("training") == "There is no recipe yet."
    assert all("not measured" in text.lower() for text in texts.values())


def test_results_page(repository):
    write(repository / "results.jsonl", result())
    texts = every(results_tables)
    assert "| nDCG@10 (queries) | nfcorpus (100) | scifact (100) | dl19 (100) | average |" in texts["quality"]
    assert "| BM25 | 0.5000 [0.4500, 0.5500] |" in texts["quality"]
    assert texts["stages"] == "Not measured."
    assert (
        "up to 100 queries per collection; float32; each model's own prompt length; commit cccccccccccc"
        in texts["quality"]
    )
    assert texts["float32"] == texts["quality"]
    assert "| refined | scifact | -0.2000 [-0.2500, -0.1500] | 0.0020 |  |  |" in texts["comparisons"]
    assert texts["findings"].splitlines() == [
        "- Against BM25: better on nfcorpus; worse on scifact; not shown to differ on dl19; "
        "on average -0.0300 [-0.0800, +0.0200], p = 0.0400: worse.",
        "- Against MiniLM bi-encoder: not measured.",
    ]
    assert texts["cost"].splitlines()[2] == "| refined | nfcorpus | 1.50 s | 2.50 s | 40.0 | 900 MiB |"


def test_stages_may_be_measured_on_fewer_queries_than_the_rest(repository):
    few = result()
    for part in few["collections"]:
        part["dataset"]["queries"] = 40
        part["systems"] += [system("base", 0.2), system("warmup", 0.3)]
    few["average"] |= {"base": interval(0.2, versus={}), "warmup": interval(0.3, versus={})}
    write(repository / "results.jsonl", result(), few)
    assert "(100)" in results_tables.quality_table()
    rows = results_tables.stage_table().splitlines()
    assert "nfcorpus (40)" in rows[0]
    assert [row.split(" | ")[0] for row in rows[2:6]] == ["| BM25", "| zero-shot base", "| warmup only", "| refined"]
    assert "0.2000 [0.1500, 0.2500]" in rows[3]


def piece(record, name, queries, **systems):
    """A record of one collection alone, with the values of its queries."""
    own = next(part for part in record["collections"] if part["dataset"]["name"] == name)
    per_query = {"queries": [f"q{i}" for i in range(queries)], "values": systems}
    part = {**own, "dataset": {"name": name, "queries": queries}, "per_query": per_query}
    return {**record, "collections": [part], "settings": {**record["settings"], "queries": 0, "collections": [name]}}


def test_a_collection_asked_more_queries_later_takes_its_place(repository):
    whole, more = result(), piece(result(), "scifact", 300, bm25=[0.5] * 300, refined=[0.7] * 300)
    more["collections"][0]["systems"][1] = system("refined", 0.7, (0.2, 0.001))
    write(repository / "results.jsonl", whole, more)
    lines = results_tables.quality_table().splitlines()
    assert lines[0] == "| nDCG@10 (queries) | nfcorpus (100) | scifact (300) | dl19 (100) | average (100, 100, 100) |"
    assert lines[3].split(" | ")[2] == "0.7000 [0.6500, 0.7500]"
    assert lines[3].split(" | ")[4] == "0.4700 [0.4200, 0.5200] |"  # not every part has its queries' values
    assert lines[-1].startswith("all queries of scifact; float32")
    assert "better on nfcorpus, scifact; not shown to differ on dl19" in results_tables.findings()

    for part in whole["collections"]:
        part["per_query"] = {"queries": ["q1", "q2"], "values": {"bm25": [0.1, 0.3], "refined": [0.4, 0.4]}}
    write(repository / "results.jsonl", whole, more)
    lines = results_tables.quality_table().splitlines()
    assert lines[3].split(" | ")[4].startswith("0.5000 [")  # (0.4 + 0.7 + 0.4) / 3
    assert lines[0].endswith("| average |")


def test_make_results_repeats_the_last_record_in_float32(repository):
    whole, rounded = result(), result()
    rounded["settings"] = {**whole["settings"], "dtype": "bfloat16"}
    write(repository / "results.jsonl", rounded)
    assert results_tables.exact_table() == "Not measured."
    write(repository / "results.jsonl", whole, rounded)
    assert "; float32; " in results_tables.exact_table()
    assert "; bfloat16; " in results_tables.quality_table()


def test_pieces_of_another_prompt_length_are_not_joined(repository):
    whole, more = result(), piece(result(), "scifact", 300, bm25=[0.5] * 300, refined=[0.7] * 300)
    more["collections"][0]["systems"][1]["description"]["max_length"] = 512
    write(repository / "results.jsonl", whole, more)
    assert "scifact (100)" in results_tables.quality_table()


def test_figures_of_another_adapter_are_not_shown_as_the_packages(repository):
    ship(repository)
    write(repository / "results.jsonl", result(weights="e" * 64))
    write(repository / "stages.jsonl", stage("base", 0.2, "f" * 64), stage("refined", 0.9, "e" * 64))
    assert "not measured" in results_tables.findings()
    assert results_tables.quality_table() == "Not measured."
    assert "| nfcorpus | refined | not measured |" in results_tables.understanding()
    write(repository / "results.jsonl", result(), result(weights="e" * 64))
    assert "worse on scifact" in results_tables.findings()


def test_stages_stand_side_by_side_and_the_last_settings_count(repository):
    older = stage("base", 0.7)
    older["sample"] = {**older["sample"], "pairs": 10}
    write(repository / "stages.jsonl", older, stage("base", 0.2), stage("refined", 0.8), stage("refined", 0.9))
    rows = results_tables.understanding().splitlines()[2:5]
    assert rows[0] == "| nfcorpus | zero-shot base |" + 3 * " 0.200 [0.100, 0.300] |"
    assert rows[1] == "| nfcorpus | warmup only |" + 3 * " not measured |"
    assert rows[2].startswith("| nfcorpus | refined | 0.900 [0.800, 1.000] |")
    assert "| nfcorpus | zero-shot base | not measured | 0 | not measured | 0.4 |" in results_tables.expressiveness()


def test_model_card(repository):
    ship(repository)
    (repository / "recipe.toml").write_text(RECIPE)
    write(repository / "results.jsonl", result())
    trained = {
        **SHARED, "kind": "refine", "training_seconds": 5400.0, "before": {"nDCG@10": 0.3}, "after": {"nDCG@10": 0.4},
        "config": {"steps": 11, "document_tokens": 48, "losses": ["kl=1"], "mixture_alpha": 0.0, "learning_rate": 2e-4},
    }  # fmt: skip
    write(repository / "training.jsonl", trained, {**trained, "config": {**trained["config"], "steps": 12}})
    texts = every(card_tables)
    assert "135 M parameters, Apache-2.0" in texts["facts"]
    assert "LoRA, rank 32: 2.5 MB" in texts["facts"]
    assert "not calibrated" in texts["facts"]
    rows = texts["data"].splitlines()[2:]
    assert rows[0].endswith(
        "non-commercial research | warmup, refine, 75% of the lists, with scores of BM25 and MiniLM, fused |"
    )
    assert rows[1].startswith(
        "| nfcorpus train | BEIR NFCorpus: nutrition and medicine, graded | academic use | refine, 25%"
    )
    assert rows[2].startswith("| scifact test |")
    assert "test only" in rows[2]
    rows = texts["training"].splitlines()[2:5]
    assert rows[0] == "| warmup | 7 | 4 | 96 | 0.001 | GRPO | not measured | not measured | not measured |"
    assert rows[1] == (
        "| refine first | 11 | 4 | 48 | 0.0002 | kl=1 | 1.50 | nDCG@10 0.3000 -> 0.4000 | a processor, 2 cores |"
    )
    assert rows[2].startswith("| refine second | 13 | 4 | 80 | 0.0002 | softmax=1, bce=0.2 | not measured |")
    assert "hours of training in all" not in texts["training"]
    assert "saved with the adapter are those of the last step, second." in texts["training"]
    lines = texts["weaknesses"].splitlines()
    assert lines[0] == "- Worse than BM25: scifact -0.2000 [-0.2500, -0.1500]; average -0.0300 [-0.0800, +0.0200]."
    assert lines[1] == "- Not shown to differ from BM25: dl19 +0.0100 [-0.0400, +0.0600]."
    assert "holds 192 tokens" in lines[2]
    assert "trained on passages of at most 80" in lines[2]
    assert "only English" in texts["weaknesses"]


def test_calibration_and_other_settings_are_named(repository):
    ship(repository, calibration=[0.5, -1.0], config={"refine": {"steps": 99}})
    (repository / "recipe.toml").write_text(RECIPE)
    assert "sigmoid(0.500 · margin -1.000), fitted on held-out data |" in card_tables.facts()
    assert "saved with the adapter are not those of the last step" in card_tables.training()
    assert "not calibrated" not in card_tables.weaknesses()


def test_the_odds_that_a_probability_is_for_are_named(repository):
    ship(repository, calibration=[0.5, 1.0], calibration_prior=0.5)
    assert "fitted on held-out data, for candidates of which 50% are relevant |" in card_tables.facts()
