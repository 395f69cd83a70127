"""Training: prompt warmup by GRPO (stage 1). Evaluation comes in as a callback; nothing here imports it."""
