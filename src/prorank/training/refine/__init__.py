"""Stage 2, fine-grained score learning: one readable loop beside its lists and losses."""
