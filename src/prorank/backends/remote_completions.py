"""The wire of ``/completions``: one token asked for, and the log-probabilities of its most likely alternatives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prorank.backends.remote_answers import IMPOSSIBLE, Alternative, alternatives, ordered
from prorank.backends.remote_wire import Pair, RemoteError

__all__ = ["CompletionsWire"]


class CompletionsWire:
    """Log-probabilities of the two label tokens; their difference is the margin.

    Args:
        shown: the server's address for messages.
        label_ids, label_words, top_logprobs, options: as of :class:`prorank.backends.remote.RemoteBackend`.
    """

    def __init__(
        self,
        shown: str,
        model: str,
        label_ids: tuple[int, int],
        label_words: tuple[str, str] | None,
        top_logprobs: int,
        options: Mapping[str, Any],
    ) -> None:
        self._shown, self._label_ids, self._label_words = shown, label_ids, label_words
        self._fixed = {
            "model": model,
            "max_tokens": 1,
            "temperature": 1,  # the distribution itself: some servers divide by the temperature before they report
            "top_p": 1,
            "logprobs": top_logprobs,
            "return_tokens_as_token_ids": True,  # vLLM: ids instead of texts; others ignore it
            **options,
        }

    def body(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        """A single prompt goes alone: some servers take no list of them."""
        return {**self._fixed, "prompt": prompts if len(prompts) > 1 else prompts[0]}

    def pairs(self, answer: Mapping[str, Any], count: int, row: int) -> list[Pair] | None:
        """See :class:`prorank.backends.remote_wire.Wire`."""
        choices = ordered(answer, count)
        return None if choices is None else [self._pair(choice, row + i) for i, choice in enumerate(choices)]

    def probe(self, prompt: Sequence[int]) -> dict[str, Any] | None:
        """None: ids and texts are compared in every answer."""
        del prompt
        return None

    def check(self, pair: Pair, probed: Mapping[str, Any]) -> None:
        """Nothing."""

    def _pair(self, choice: Mapping[str, Any], row: int) -> Pair:
        listed = alternatives(choice)
        if not listed:
            raise RemoteError(
                f"{self._shown}: the answer to row {row} holds no log-probabilities; the server must support logprobs"
            )
        return self._find(listed, 0, row), self._find(listed, 1, row)

    def _find(self, listed: Sequence[Alternative], label: int, row: int) -> float:
        wanted = self._label_ids[label]
        word = self._label_words[label] if self._label_words else None
        with_ids = [entry for entry in listed if entry.token_id is not None]
        found = [entry.logprob for entry in with_ids if entry.token_id == wanted]
        if not with_ids:
            if word is None:
                raise RemoteError(
                    f"{self._shown} answers with texts instead of token ids (such as {listed[0].text!r}); "
                    "give label_words"
                )
            found = [entry.logprob for entry in listed if entry.text == word]
        name = f"label token {wanted}" + (f" ({word!r})" if word is not None else "")
        if len(found) > 1:
            raise RemoteError(f"{self._shown}: row {row}: {len(found)} returned tokens read like {name}")
        if not found or not math.isfinite(found[0]) or found[0] <= IMPOSSIBLE:
            raise RemoteError(
                f"{self._shown}: row {row}: {name} is not among the {len(listed)} most likely tokens returned; raise "
                "top_logprobs and the server's own limit (vLLM: --max-logprobs), or check model and template"
            )
        return found[0]
