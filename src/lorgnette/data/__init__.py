"""Samples, their images, their rendering to token ids and labels, and the rows a forward pass sees."""
