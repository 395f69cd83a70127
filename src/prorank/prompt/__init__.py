"""Prompts: (query, documents) -> token ids. Truncation, label ids, excerpts, and the guard against special tokens."""
