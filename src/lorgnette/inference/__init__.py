"""Answers from a model: batched, with shared image prefixes."""
