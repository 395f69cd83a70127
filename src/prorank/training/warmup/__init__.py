"""Stage 1, prompt warmup by GRPO: one readable loop beside its pure mathematics."""
