"""Collections and first-stage lists as commands open them: what a user should know of either is said at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prorank.data.collection import Collection, OwnDocuments
    from prorank.types import Run

__all__ = ["lists_of", "open_collection"]


def open_collection(path: str, split: str | None, own_documents: OwnDocuments | None = None) -> Collection:
    """The collection, with a line on stderr where queries are documents of it."""
    from prorank.data.load import load_collection

    collection = load_collection(path, split, own_documents=own_documents)
    own = collection.own_documents
    if own:
        _say(
            f"{collection.name}: {len(own)} of {len(collection.queries)} queries are documents of the collection, "
            "under the same id; these documents are left out of their lists (--own-documents keep: leave them in)"
        )
        relevant = sum(collection.qrels.get(query_id, {}).get(query_id, 0) > 0 for query_id in own)
        if relevant:
            _say(
                f"warning: {relevant} of them are judged relevant to the query of the same id, and count as not found, "
                "as in BEIR; where the ids are equal by chance, give --own-documents keep"
            )
    elif own_documents is None:
        same = [q for q in collection.queries if q in collection.documents and _same_text(collection, q)]
        if same:
            _say(
                f"{collection.name}: {len(same)} queries are documents of the collection, with the same id and text; "
                "--own-documents drop leaves these documents out of their lists"
            )
    return collection


def _same_text(collection: Collection, query_id: str) -> bool:
    document, text = collection.documents[query_id], collection.queries[query_id].text.strip()
    return text in (document.text.strip(), document.content.strip())


def lists_of(
    collection: Collection,
    spec: str,
    top_k: int,
    *,
    field: str = "first_stage",
    remedy: str = "--first-stage dense or --first-stage RUN.trec",
    required: bool = True,
) -> Run:
    """The first stage's lists; a warning on stderr where queries have none.

    Args:
        field: the one that named the first stage.
        remedy: what may find candidates, for the messages.
        required: whether it is an error that no query has any.

    Raises:
        ValueError: no query has candidates; or as :func:`prorank.data.first_stage`.
    """
    from prorank.data.first_stage import first_stage

    run = first_stage(spec, collection, top_k)
    ids = list(collection.qrels or collection.queries)
    empty = [q for q in ids if not run.get(q)]
    name = Path(spec).name if Path(spec).is_file() else spec
    if not empty:
        return run
    if len(empty) < len(ids):
        shown = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
        _say(
            f"warning: {name} has no candidates for {len(empty)} of the {len(ids)} queries of {collection.name} "
            f"({shown}); {remedy} may have some"
        )
        return run
    message = f"{field}: {name} has no candidates for any of the {len(ids)} queries of {collection.name}; try {remedy}"
    if required:
        raise ValueError(message)
    _say(f"warning: {message}")
    return run


def _say(text: str) -> None:
    print(f"prorank: {text}", file=sys.stderr, flush=True)
