"""A tokenizer from a GGUF file's tables: vocabulary, merges, kinds of tokens and the name of the splitting rules.

The way back is :mod:`prorank.export.gguf_tokenizer`. Token ids are those of transformers' own conversion, which our
rerankers were trained with: where it does not know the name of a splitting rule (``smollm``), it splits as GPT-2 does,
and so do we.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prorank.model.built_in import BaseError

__all__ = ["tokenizer_of"]

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _WORDS + r"\p{N}" + _REST),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "smaug-bpe"), _WORDS + r"\p{N}{1,3}" + _REST),
}
"""llama.cpp's name of a rule -> the expression by which a text is split before bytes are merged."""
_SPLIT_AS_GPT2 = ("gpt-2", "smollm", "default")
_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens


def tokenizer_of(metadata: Mapping[str, Any], where: str) -> Any:
    """The tokenizer of the library tokenizers.

    Args:
        metadata: of :class:`prorank.model.gguf_file.GgufFile`.
        where: the file's name, for messages.

    Raises:
        BaseError: the tables are missing, or of another kind than byte-level BPE (GPT-2, SmolLM, Qwen, Llama 3).
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    kind, rule = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or (rule not in _SPLITS and rule not in _SPLIT_AS_GPT2):
        raise BaseError(
            f"{where}: a tokenizer of kind {kind!r} with rules {rule!r} is read with: pip install 'prorank[torch]'"
        )
    try:
        tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
        kinds = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
        pairs = [tuple(merge.split(" ")) for merge in merges]
        numbers = {token: number for number, token in enumerate(tokens)}
        made = Tokenizer(models.BPE(vocab=numbers, merges=pairs, fuse_unk=False, byte_fallback=False))
    except Exception as error:  # tokenizers raises plain Exception
        raise BaseError(f"{where}: its tokenizer's tables are damaged: {type(error).__name__}: {error}") from error
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if rule in _SPLITS:
        steps = [
            pre_tokenizers.Split(Regex(_SPLITS[rule]), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
        made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    letters = set(pre_tokenizers.ByteLevel.alphabet())
    control = [t for t, k in zip(tokens, kinds, strict=False) if k == _CONTROL and set(t) <= letters]
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    added = [token for token, k in zip(tokens, kinds, strict=False) if k == _USER_DEFINED]
    made.add_tokens([AddedToken(token, normalized=False, special=False) for token in added])
    return made
