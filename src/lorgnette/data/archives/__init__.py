"""Zip and tar archives from strangers."""
