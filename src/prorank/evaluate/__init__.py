"""Evidence: measures, significance, baselines, the evaluation loop, the paper's analysis, records and reports."""
