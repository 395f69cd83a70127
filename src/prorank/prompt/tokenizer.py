"""A checkpoint's tokenizer without transformers: what an exported model needs to start in a second and stay small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["FastTokenizer"]


class FastTokenizer:
    """The Rust tokenizer of a ``tokenizer.json``, with those methods of transformers' tokenizers that prompts need.

    Args:
        folder: holds ``tokenizer.json``.

    Raises:
        ValueError: the file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder}: tokenizer.json is missing")
        try:
            self.backend_tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(f"{path}: not a tokenizer: {error}") from error
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()
        self.added_tokens_decoder: dict[int, Any] = self.backend_tokenizer.get_added_tokens_decoder()
        self._folder = folder

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of the special tokens."""
        return [token.content for token in self.added_tokens_decoder.values() if token.special]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of a token's text."""
        found: int | None = self.backend_tokenizer.token_to_id(token)
        return found

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens included."""
        text: str = self.backend_tokenizer.decode(ids, skip_special_tokens=False)
        return text
