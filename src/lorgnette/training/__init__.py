"""Stages of training on rows, with one trainer."""
