"""Which sentences carried a score: what ``explain`` in a request adds to its best results.

Their documents are scored again without each of their sentences: at most MOST_EXPLAINED documents, of at most
MOST_SENTENCES sentences each, in the same queue as everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from prorank.prompt.sentences import sentence_weights, sentences, without
from prorank.ranking import best_places

if TYPE_CHECKING:
    from prorank.prompt.encoded import Encoded
    from prorank.scoring import Margins
    from prorank.serve.work import Work

__all__ = ["MOST_EXPLAINED", "LeftOut", "left_out"]

MOST_EXPLAINED = 10


class LeftOut(NamedTuple):
    """The best documents, each without each of its sentences."""

    texts: Mapping[int, str]
    """Place in the request -> what was read of the document."""
    margins: Mapping[int, float]
    sentences: Mapping[int, Sequence[tuple[int, int]]]
    encoded: list[Encoded]
    """One a document, in the same order."""

    def weights(self, scored: Sequence[Margins]) -> dict[int, list[dict[str, Any]]]:
        """Place -> the document's sentences with their weights, as the answer has them.

        Args:
            scored: margins of :attr:`encoded`.
        """
        return {
            place: [one._asdict() for one in sentence_weights(self.texts[place], cut, self.margins[place], others)]
            for (place, cut), others in zip(self.sentences.items(), scored, strict=True)
        }


def left_out(reranker: Any, work: Work, margins: Margins) -> LeftOut:
    """What to score for a request's explanations; runs where the tokenizer may be entered.

    Args:
        margins: of the first list's documents.
    """
    query, documents = work.lists[0]
    places, _ = best_places(margins, reranker.probability(margins), work.explain, work.thresholds)
    texts = dict(zip(places, reranker.beginnings([documents[i] for i in places], work.max_tokens_per_doc), strict=True))
    cut = {place: sentences(text) for place, text in texts.items()}
    encoded = [
        reranker.encode(
            query, [without(texts[place], one) for one in found], instruction=work.instruction, keep_end=work.keep_end,
            max_chunks=work.max_chunks_per_doc,
        )
        for place, found in cut.items()
    ]  # fmt: skip
    return LeftOut(texts, {place: float(margins[place]) for place in places}, cut, encoded)
