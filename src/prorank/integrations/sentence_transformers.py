"""sentence-transformers: a ``CrossEncoder`` that scores as prorank does, whatever the engine and the documents' length.

from prorank.integrations.sentence_transformers import ProRankCrossEncoder

CrossEncoderRerankingEvaluator(samples)(ProRankCrossEncoder())

A merged checkpoint also loads as a plain ``CrossEncoder(FOLDER)``, without code of ours: that one cuts every document
at its end, where this one reads excerpts and windows, keeps queries within their limit and special tokens as text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prorank._optional import require
from prorank.integrations.ranker import Ranker

require("sentence_transformers", extra="evaluate")
import torch  # noqa: E402
from sentence_transformers import CrossEncoder  # noqa: E402

if TYPE_CHECKING:
    from prorank.client import Client
    from prorank.reranker import Reranker

__all__ = ["ProRankCrossEncoder"]


class ProRankCrossEncoder(CrossEncoder):
    """``predict`` and ``rank`` with prorank's margins; it cannot be trained or saved as a sentence-transformers model.

    Args:
        reranker: a :class:`prorank.Reranker` or :class:`prorank.Client`; default: made from ``model`` or ``url`` when
            it is first needed.
        model: name of a model; default: the built-in reranker.
        url: of a running ``prorank serve``, instead of a local model.
        api_key: for that server.
        activation_fn: applied to the margins, such as ``torch.nn.Sigmoid()``; default: none.
    """

    def __init__(
        self,
        reranker: Reranker | Client | None = None,
        *,
        model: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        activation_fn: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__(
            modules=[torch.nn.Identity()], device="cpu", activation_fn=activation_fn or torch.nn.Identity()
        )
        self._ranker = Ranker(reranker, model=model, url=url, api_key=api_key)

    def predict(  # type: ignore[override, unused-ignore]  # theirs is overloaded over pictures and sounds, too
        self,
        inputs: Sequence[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,  # noqa: ARG002  (batches are cut by tokens)
        show_progress_bar: bool | None = None,  # noqa: ARG002
        activation_fn: Callable[[torch.Tensor], torch.Tensor] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Margins of (query, document) pairs, as the base class gives its scores.

        Args:
            prompt: what relevance means here (the instruction); default: the template's.

        Raises:
            ValueError: a pair is none, or an option that has no meaning here is given.
        """
        unknown = [name for name, value in kwargs.items() if value is not None]
        if unknown or apply_softmax:
            raise ValueError(f"{unknown[0] if unknown else 'apply_softmax'}: has no meaning for a prorank model")
        single = self.is_singular_input(inputs)
        given: Sequence[Any] = [inputs] if single else inputs
        pairs = [(str(query), str(document)) for query, document in given]
        instruction = self._resolve_prompt(prompt, prompt_name) or None
        margins = self._ranker.open().score(pairs, instruction=instruction) if pairs else []
        activation: Any = activation_fn or self.activation_fn
        scores = activation(torch.tensor([float(m) for m in margins]))
        if single:
            scores = scores[0]
        if convert_to_tensor:
            return scores
        if convert_to_numpy:
            return scores.numpy()
        return scores if single else list(scores)
