"""Benchmarks: their documents, their prompts, their scores; predictions and results on disk."""
