"""PyTerrier: a transformer of results, R -> R.

from prorank.integrations.pyterrier import ProRankTransformer

pipeline = bm25 % 100 >> pt.text.get_text(dataset, "text") >> ProRankTransformer()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prorank._optional import require
from prorank.integrations.ranker import Ranker

require("pyterrier", extra="pyterrier")
import pyterrier as pt  # noqa: E402
from pandas import DataFrame, concat  # noqa: E402

if TYPE_CHECKING:
    from prorank.client import Client
    from prorank.reranker import Reranker

__all__ = ["ProRankTransformer"]


class ProRankTransformer(pt.Transformer):  # type: ignore[misc, unused-ignore]
    """Scores the documents of each query again: ``score`` becomes the margin, ``rank`` follows from it.

    All other columns stay. Rows of a query come best first; equal margins keep the rank they had.

    Args:
        reranker: a :class:`prorank.Reranker` or :class:`prorank.Client`; default: made from ``model`` or ``url`` when
            the first document is scored.
        model: name of a model; default: the built-in reranker.
        url: of a running ``prorank serve``, instead of a local model.
        api_key: for that server.
        instruction: what relevance means here; default: the template's.
        text_field: the column with the documents' texts.
        verbose: show progress over queries.
    """

    def __init__(
        self,
        reranker: Reranker | Client | None = None,
        *,
        model: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        instruction: str | None = None,
        text_field: str = "text",
        verbose: bool = False,
    ) -> None:
        super().__init__()
        self.instruction, self.text_field, self.verbose = instruction, text_field, verbose
        self._ranker = Ranker(reranker, model=model, url=url, api_key=api_key)
        self._name = model or getattr(reranker, "name", None) or url or "default"

    def transform(self, inp: DataFrame) -> DataFrame:
        """The results with new scores and ranks.

        Args:
            inp: columns ``qid``, ``query``, ``docno`` and the texts' one; ``rank`` where there is one breaks ties.

        Raises:
            pyterrier.validate.InputValidationError: a column is missing.
        """
        pt.validate.result_frame(inp, extra_columns=["query", self.text_field])
        groups = [group for _, group in inp.groupby("qid", sort=False)]
        if not groups:
            return pt.model.add_ranks(inp.assign(score=inp.get("score", 0.0)).astype({"score": "float64"}))
        return concat([self._scored(group) for group in pt.tqdm(groups, unit="q", disable=not self.verbose)])

    def _scored(self, group: DataFrame) -> DataFrame:
        """One query's rows, best first."""
        if "rank" in group.columns:
            group = group.sort_values("rank", kind="stable")
        texts = ["" if text is None else str(text) for text in group[self.text_field]]
        found = self._ranker.rank(str(group["query"].iloc[0]), texts, top_k=None, instruction=self.instruction)
        ordered = group.iloc[[result.index for result in found]].assign(score=[result.margin for result in found])
        return pt.model.add_ranks(ordered, single_query=True)

    def __repr__(self) -> str:
        return f"ProRankTransformer({self._name!r})"
