"""Samples to train, val and test, so that no image is in two of them."""
