"""Writes the tables of docs/serving.md from benchmarks/results/serve.jsonl; no figure there is typed by hand.

A table shows the last record that has what it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.tables import writer as tables
from benchmarks.tables.writer import DOCS, Record

PAGE = DOCS / "serving.md"


def last(records: list[Record], fits: Callable[[Record], bool]) -> Record | None:
    return next((record for record in reversed(records) if fits(record)), None)


def seconds(row: Record) -> str:
    return " | ".join(f"{row[name] / 1000:.1f} s" for name in ("p50_ms", "p95_ms", "p99_ms"))


def bf16(record: Record) -> bool:
    return bool(record["settings"]["precision"] == "bfloat16")


def rest(row: Record) -> str:
    return f"{row['documents_per_second']:.1f} | {seconds(row)} | {row['answered']} | {row['failed']}"


def source(record: Record) -> str:
    """One line: on what, with which settings, at which commit."""
    environment, settings, offline = record["environment"], record["settings"], record["offline"]
    each = offline["tokens_per_request"] / settings["documents"]
    return (
        f"{record['model']['model']}, {record['model']['backend']}, {environment['cores']} cores "
        f"({environment['cpu']}); {settings['documents']} documents per request, {each:.0f} tokens per document "
        f"(including the query's shared ones); {settings['seconds']:.0f} s per phase; commit {record['commit'][:12]}"
        f"{' with uncommitted changes' if record['dirty'] else ''}."
    )


def load(records: list[Record]) -> str:
    record = last(records, lambda one: "clients_64" in one)
    if record is None:
        return "Not recorded yet."
    lines = [
        "| clients | documents/s | of `Reranker.rank` | p50 | p95 | p99 | answered | lost, failed or refused | wrong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    offline = record["offline"]
    lines.append(f"| library | {offline['documents_per_second']:.1f} | 1 | {seconds(offline)} | | | |")
    for clients in record["settings"]["clients"]:
        row = record[f"clients_{clients}"]
        bad = row["lost"] + row["failed"] + row["refused"]
        lines.append(
            f"| {clients} | {row['documents_per_second']:.1f} | {row['share_of_offline']:.2f} | {seconds(row)} "
            f"| {row['answered']} | {bad} | {row['wrong']} |"
        )
    worst = max(record[f"clients_{n}"]["worst_difference"] for n in record["settings"]["clients"])
    return "\n".join(
        [*lines, "", f"{source(record)} Largest difference from the library's margins: {worst:.2g} "
                     f"(allowed: {record['settings']['tolerance']:g})."]
    )  # fmt: skip


def exact(records: list[Record]) -> str:
    record = last(records, lambda one: one["settings"]["precision"] == "float32" and "soak" not in one)
    if record is None:
        return "Not recorded yet."
    row = record["clients_16"]
    return (
        f"In float32, 16 clients: {row['documents_per_second']:.1f} documents/s, {row['share_of_offline']:.2f} of the "
        f"library's {record['offline']['documents_per_second']:.1f}; {row['answered']} requests answered, "
        f"{row['wrong']} wrong; largest margin difference {row['worst_difference']:.1g} (allowed: 0.0001). "
        f"{source(record)}"
    )


def overload(records: list[Record]) -> str:
    record = last(
        records, lambda one: not {"note", "soak"} & set(one) and bf16(one)
    )  # a note says what is wrong with a record
    if record is None:
        return "Not recorded yet."
    row = record["overload"]
    return "\n".join(
        [
            "| sent | requests/s sent | answered | 429 | failed or lost | wrong | p50 | p95 | p99 |",
            "|---|---|---|---|---|---|---|---|---|",
            f"| {row['sent']} | {row['requests_per_second_sent']:.1f} | {row['answered']} | {row['refused']} "
            f"| {row['failed'] + row['lost']} | {row['wrong']} | {seconds(row)} |",
            "",
            f"`--max-queue-seconds {record['settings']['bound']:g}`. {source(record)}",
        ]
    )


def peer(records: list[Record]) -> str:
    record = last(records, lambda one: "peer" in one)
    if record is None:
        return "Not recorded yet."
    found = record["peer"]
    lines = [
        "| server | clients | documents/s | p50 | p95 | p99 | answered | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for clients in record["settings"]["clients"]:
        row = record[f"clients_{clients}"]
        lines.append(f"| `prorank serve` | {clients} | {rest(row)} |")
    for clients in record["settings"]["peer_clients"]:
        row = found[f"clients_{clients}"]
        name = f"FastAPI around {found['engine']}"
        lines.append(f"| {name} | {clients} | {rest(row)} |")
    return "\n".join([*lines, "", f"{source(record)} Both in {found['precision']}."])


def memory(records: list[Record]) -> str:
    record = last(records, lambda one: "soak" in one)
    if record is None:
        return "Not recorded yet."
    row = record["soak"]
    return (
        f"{row['seconds'] / 60:.0f} minutes with 16 clients: {row['memory_mib_early']:.0f} MiB resident in the first "
        f"half, {row['memory_mib_late']:.0f} MiB in the second (medians, without the first fifth of the time); "
        f"{row['answered']} requests answered, {row['refused']} refused, {row['lost'] + row['failed']} lost, "
        f"{row['wrong']} wrong. {source(record)}"
    )


def written(function: Callable[[list[Record]], str]) -> str:
    return function(tables.records("serve.jsonl"))


PAGES = {
    PAGE: {function.__name__: partial(written, function) for function in (load, exact, overload, peer, memory)},
}
