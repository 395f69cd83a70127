"""Backends: token ids -> label logits, nothing else. Each file is one engine."""
