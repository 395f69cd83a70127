"""Checkpoints in the formats of other engines; each export ends in a parity report."""
