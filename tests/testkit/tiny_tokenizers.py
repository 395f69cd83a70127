"""Small tokenizers, trained in a moment: no model to fetch, vocabularies of a few hundred tokens."""

from __future__ import annotations

from typing import Any, Literal

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = [
    "A vaccine shows the immune system a harmless piece of a germ, and the immune system learns.",
    "the quick brown fox jumps over the lazy dog 0 1 2 3 10 11 2024",
    "Bread: flour, water, yeast and salt; the markets of the towns sell it at dawn.",
    "It's they'll I'd we've you're  don't   \n\n and lines\n of text",
]
RULES = ("gpt-2", "smollm", "qwen2", "llama-bpe")


def tiny_tokenizer(rules: Literal["gpt-2", "smollm", "qwen2", "llama-bpe", "fallback"] = "gpt-2") -> Any:
    """A transformers tokenizer with one of llama.cpp's splitting rules, or Llama 2's kind with byte fallback."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    fallback = rules == "fallback"
    tokenizer = Tokenizer(models.BPE(byte_fallback=fallback, unk_token="<unk>" if fallback else None))
    special = list(SPECIAL)
    if fallback:
        special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    elif rules in ("qwen2", "llama-bpe"):
        pattern = words + (r"\p{N}" if rules == "qwen2" else r"\p{N}{1,3}") + rest
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, plain]) if rules == "smollm" else plain
    if not fallback:
        tokenizer.decoder = decoders.ByteLevel()
    alphabet = [] if fallback else pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=640 if fallback else 400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    if fallback:  # byte tokens are ordinary ones there
        tokenizer = _bytes_made_ordinary(tokenizer, special)
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )


def _bytes_made_ordinary(tokenizer: Any, special: list[str]) -> Any:
    import json

    from tokenizers import Tokenizer

    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in special[:3]]
    return Tokenizer.from_str(json.dumps(data))
