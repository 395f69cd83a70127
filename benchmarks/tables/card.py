"""Writes the tables of docs/model-card.md from the shipped adapter's manifest, its recipe and the records.

benchmarks/results/training.jsonl holds the record line of each step of training (`cat runs/NAME/*/records.jsonl`); a
step's line is the last one whose settings are those of the recipe.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.tables import records as results_records
from benchmarks.tables import results
from benchmarks.tables.writer import DOCS, Record, records, table

PAGE = DOCS / "model-card.md"
RECIPE = results_records.REPO / "recipes" / "train" / f"{results_records.NAME}.toml"
TRAINING_FILE = "training.jsonl"
MS_MARCO = "MS MARCO terms: non-commercial research"
DATA = {
    "msmarco-sample": ("MS MARCO web queries, one relevant passage each", MS_MARCO),
    "dl19": ("TREC Deep Learning 2019 passages, graded", MS_MARCO),
    "dl21": ("TREC Deep Learning 2021 passages, graded", MS_MARCO),
    "nfcorpus": ("BEIR NFCorpus: nutrition and medicine, graded", "academic use"),
    "scifact": ("BEIR SciFact: scientific claims and abstracts", "CC BY 4.0, ODC-By"),
    "wikiqa": ("WikiQA: questions and sentences of Wikipedia", "Microsoft Research: research use"),
    "nq-sample": ("Natural Questions and their Wikipedia passages", "CC BY-SA 3.0"),
    "medquad": ("MedQuAD: medical questions and answers", "CC BY 4.0"),
    "pubmedqa": ("PubMedQA: research questions and abstracts", "MIT"),
    "code-pairs": ("intents and Python snippets (CoNaLa, Python documentation, MBPP)", "CC BY-SA, PSF, CC BY 4.0"),
    "cosqa": ("CoSQA: web queries and Python functions", "C-UDA"),
    "acord": ("ACORD: contract clauses, graded", "CC BY 4.0"),
    "zh-drcd": ("DRCD: questions and paragraphs in traditional Chinese", "CC BY-SA"),
    "zh-cmrc": ("CMRC: questions and paragraphs in simplified Chinese", "CC BY-SA"),
    "zh-csl": ("CSL: Chinese titles and abstracts", "Apache-2.0"),
}
"""Collection -> (what it is, licence of the data)."""
LONG = {
    "truncate": "The rest of the passage is cut. Longer documents need `--max-length`, or "
    "`--long-documents max_window`, neither of which it was trained for.",
    "excerpt": "From a longer passage it reads the beginning and the sentences that share the query's words; it misses "
    "whatever says the same in other words further on. `--max-length` shows it more, `--long-documents max_window` "
    "everything, but it was trained for neither.",
}
"""By the manifest's ``long_documents``: what becomes of long passages."""
TEACHERS = {"fused": "BM25 and MiniLM, fused", "dense": "MiniLM", "bm25": "BM25"}


def recipe() -> dict[str, Any]:
    return tomllib.loads(RECIPE.read_text("utf-8")) if RECIPE.is_file() else {}


def collection_name(path: str) -> str:
    return PurePosixPath(path).name


def steps() -> list[tuple[str, dict[str, Any]]]:
    """("warmup" or the name of a refine block, its settings in the recipe), in order."""
    file = recipe()
    if not file:
        return []
    from prorank.pipeline.train import BLOCK_KEYS

    found = [("warmup", file.get("warmup", {}))]
    for block in file.get("blocks", [{"name": "all"}]):
        settings = {**file.get("refine", {}), **block}
        found.append((block.get("name", "refine"), {k: v for k, v in settings.items() if k not in BLOCK_KEYS}))
    return found


def agrees(config: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a resolved configuration has every setting that a recipe names."""
    return all(config.get(name) == value for name, value in settings.items())


def trained(kind: str, settings: Mapping[str, Any]) -> Record | None:
    """The last record of a step with these settings."""
    found = [r for r in records(TRAINING_FILE) if r["kind"] == kind and agrees(r["config"], settings)]
    return found[-1] if found else None


# ---- the page


def facts() -> str:
    """What is in the package."""
    from prorank.model.base import BUILT_IN

    found = results_records.manifest()
    if found is None:
        return f"`{results_records.NAME}` does not come with the package yet."
    folder = results_records.MODELS / results_records.NAME
    base = BUILT_IN.get(found["base_name"])
    weights = [
        (name, digest, (folder / name).stat().st_size / 1e6) for name, digest in results_records.weights(found).items()
    ]
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    calibration = found["calibration"]
    prior = found.get("calibration_prior")
    odds = f", for candidates of which {prior:.0%} are relevant" if prior else ""
    fitted = (
        "sigmoid({:.3f} · margin {:+.3f}), fitted on held-out data".format(*calibration) + odds if calibration else ""
    )
    rows = [
        [
            "base",
            f"{base.summary}, {base.parameters / 1e6:.0f} M parameters, {base.licence}" if base else found["base_name"],
        ],
        ["sha256 of the base", f"`{found['base_sha256']}`; any other base is refused"],
        ["adapter", f"LoRA, rank {config['r']}: " + ", ".join(f"{size:.1f} MB" for _, _, size in weights)],
        ["sha256 of the adapter", ", ".join(f"`{digest}`" for _, digest, _ in weights)],
        ["read-outs", read_outs(folder)],
        ["trained last by", found["stage"]],
        ["made", ", commit ".join(filter(None, (found["created"], found["commit"][:12])))],
        ["prompt", f"at most {found['max_length']} tokens, template `{found['template']['name']}`"],
        [
            "probability",
            fitted or "not calibrated: sigmoid of the margin; order by it, it is no probability",
        ],
    ]
    return table(["", "`" + results_records.NAME + "`"], rows)


def read_outs(folder: Path) -> str:
    """Where documents may stop early."""
    from prorank.early_exit.readouts import Cascade

    found = Cascade.load(folder)
    return f'after layers {", ".join(map(str, found.layers))}: `cascade="fast"`, `"faster"`' if found else "none"


def data() -> str:
    """Each collection of the recipe, what it was used for, and its licence."""
    file = recipe()
    datasets = file.get("datasets", [])
    if not datasets:
        return "There is no recipe yet."
    even = file.get("refine", {}).get("mixture_alpha") == 0  # then draws go by weight alone
    total = sum(one.get("weight", 1.0) for one in datasets)
    rows = []
    for number, one in enumerate(datasets):
        name = collection_name(one["path"])
        used = ["warmup"] if number == 0 else []
        weight = one.get("weight", 1.0)
        used.append(f"refine, {weight / total:.0%} of the lists" if even else f"refine, weight {weight:g}")
        if teacher := one.get("teacher") or file.get("teacher"):
            used.append(f"with scores of {TEACHERS.get(teacher, teacher)}")
        rows.append([f"{name} {one.get('split', 'train')}", *DATA.get(name, ("", "its own")), ", ".join(used)])
    for spec in file.get("test", []):
        name, _, split = collection_name(spec).partition(":")
        rows.append(
            [
                f"{name} {split}",
                *DATA.get(name, ("", "its own")),
                "test only; what it shares is not trained on",
            ]
        )
    return table(["collection", "what it is", "licence of the data", "used for"], rows)


def training() -> str:
    """The recipe's steps, and from the records how long each took, on what, and what it changed."""
    from prorank.training.refine.config import RefineConfig
    from prorank.training.warmup.config import WarmupConfig

    classes = {"warmup": WarmupConfig, "refine": RefineConfig}
    rows, hours, known = [], 0.0, True
    for number, (name, settings) in enumerate(steps()):
        kind = "refine" if number else "warmup"
        record = trained(kind, settings)
        values = [
            settings.get(key, getattr(classes[kind], key))
            for key in ("steps", "queries_per_step", "document_tokens", "learning_rate")
        ]
        teaches = ", ".join(settings.get("losses", RefineConfig.losses)) if number else "GRPO"
        rows.append([f"{kind} {name}" if number else kind, *(f"{v:g}" for v in values), teaches, *outcome(record)])
        known &= record is not None
        hours += record["training_seconds"] / 3600 if record else 0
    if not rows:
        return "There is no recipe yet."
    heads = [
        "step", "steps", "queries per step", "document tokens", "learning rate", "learns from", "hours", "held out",
        "hardware",
    ]  # fmt: skip
    text = table(heads, rows)
    if known:
        text += f"\n\n{hours:.1f} hours of training in all."
    found = results_records.manifest()
    if found is not None:
        last = steps()[-1]
        same = agrees(found["config"].get(found["stage"], {}), last[1])
        text += (
            f"\n\nThe settings saved with the adapter are {'' if same else 'not '}those of the last step, {last[0]}."
        )
    return text


def outcome(record: Record | None) -> list[str]:
    """Hours, held-out measure before and after, hardware."""
    if record is None:
        return [results.MISSING] * 3
    name = "auc_hard" if record["kind"] == "warmup" else "nDCG@10"
    before, after = record["before"].get(name), record["after"].get(name)
    held_out = f"{name} {before:.4f} -> {after:.4f}" if before is not None and after is not None else results.MISSING
    environment = record["environment"]
    where = environment.get("gpu") or f"{environment['cpu']}, {environment['cores']} cores"
    return [f"{record['training_seconds'] / 3600:.2f}", held_out, where]


def measured() -> str:
    return f"{results.findings()}\n\n{results.quality_table()}"


def weaknesses() -> str:
    """What the figures and the recipe say that it cannot do."""
    lines, record, found = [], results_records.last_results(), results_records.manifest()
    for other in ("bm25", "minilm", "fused") if record else ():
        lines += beside(record, other)
    if record is None or "refined" not in results_records.cells(record):
        lines.append(f"How it compares with BM25 and MiniLM: {results.MISSING}.")
    if found is not None:
        tokens = [settings["document_tokens"] for _, settings in steps() if "document_tokens" in settings]
        trained_on = f"; it was trained on passages of at most {max(tokens)}" if tokens else ""
        lines.append(f"A prompt holds {found['max_length']} tokens{trained_on}. {LONG[found['long_documents']]}")
        if found["calibration"] is None:
            lines.append("Its probabilities are not calibrated.")
    names = [collection_name(one["path"]) for one in recipe().get("datasets", [])]
    if names:
        lines += unseen(names)
    return "\n".join(f"- {line}" for line in lines)


def beside(record: Record, other: str) -> list[str]:
    """Where the refined model is not better than another system; the fusion is compared by its mean alone."""
    cells = results_records.cells(record)
    if "refined" not in cells or other not in cells:
        return []
    title, own = results.TITLES[other], cells["refined"]
    if other == "fused":
        lower = [w for w in own if own[w]["mean"] <= cells[other][w]["mean"]]
        return [f"Its mean is not above that of {title}: {', '.join(lower)} (not tested)."] if lower else []
    lines = []
    for what, places in results.verdicts(record, "refined", other).items():
        shown = "; ".join(f"{w} {results.spread(own[w]['versus'][other], '+')}" for w in places)
        if places and what != "better":
            lines.append(f"{'Worse than' if what == 'worse' else 'Not shown to differ from'} {title}: {shown}.")
    return lines


def unseen(names: Sequence[str]) -> list[str]:
    lines = []
    if not any(name.startswith("zh-") for name in names):
        lines.append("It has seen only English; other languages are not measured.")
    if not {"code-pairs", "cosqa"} & set(names):
        lines.append("It has seen no code; code search is not measured.")
    return lines


PAGES = {
    PAGE: {
        "facts": facts,
        "data": data,
        "training": training,
        "measured": measured,
        "understanding": results.understanding,
        "expressiveness": results.expressiveness,
        "weaknesses": weaknesses,
    }
}
