"""The image token's row in the vocabulary: Hugging Face's LLaVA has one, the original LLaVA and XTuner have none."""

from __future__ import annotations

from dataclasses import replace

import torch

from lorgnette.data.sample import IMAGE_TAG
from lorgnette.models.assembly import add_image_token
from lorgnette.models.conversion.huggingface import Whole
from lorgnette.models.conversion.weights import LazyTensor, Tensors

ROWS_ROUNDED_TO = 64
"""Vocabularies grow to a multiple of this, which tensor cores want; Hugging Face's own conversion does the same."""


def with_image_token(whole: Whole) -> Whole:
    """Give tokenizer and vocabulary the token where images stand, where they have none yet.

    New rows of embedding and head are the mean of the old: the image token's embedding is never used, and no new token
    is likelier than an average one.
    """
    config, tokenizer, language = whole.config, whole.tokenizer, whole.language_model
    config.image_token_id = add_image_token(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    config.pad_token_id = tokenizer.pad_token_id
    rows = config.text_config.vocab_size
    if len(tokenizer) <= rows:
        return whole
    wanted = -(-len(tokenizer) // ROWS_ROUNDED_TO) * ROWS_ROUNDED_TO
    config.text_config.vocab_size = wanted
    grown = {  # a tensor of another size is left as it is, for the check that names it
        name: with_rows(language[name], wanted)
        for name in ("model.embed_tokens.weight", "lm_head.weight")
        if name in language and language[name].shape[0] == rows
    }
    note = f"the vocabulary grew from {rows:,} to {wanted:,} rows: {IMAGE_TAG} is token {config.image_token_id:,}"
    return replace(whole, language_model=language | grown, notes=(*whole.notes, note))


def with_rows(tensor: LazyTensor, rows: int) -> LazyTensor:
    """Append rows that are the mean of the others: (V, D) -> (rows, D)."""

    def grown(old: torch.Tensor) -> torch.Tensor:
        mean = old.float().mean(dim=0, keepdim=True).to(old.dtype)
        return torch.cat([old, mean.expand(rows - old.shape[0], -1)])

    return tensor.then(grown, (rows, tensor.shape[1]))


def original_rows(rows: int, image_token_id: int) -> int:
    """Return how many rows a vocabulary had before the conversion to Hugging Face appended some.

    That one appends the image token, often a padding token, and rounds up to 64. Where the image token stands in the
    middle of a vocabulary (Qwen's is larger than its tokenizer), nothing was appended.
    """
    appended = [-(-(image_token_id + extra) // ROWS_ROUNDED_TO) * ROWS_ROUNDED_TO for extra in (1, 2)]
    return image_token_id if rows in (image_token_id + 1, image_token_id + 2, *appended) else rows


def with_original_rows(language: Tensors, rows: int) -> Tensors:
    """Cut embedding and head to the first rows."""
    cut = {
        name: language[name].then(lambda value: value[:rows], (rows, *language[name].shape[1:]))
        for name in ("model.embed_tokens.weight", "lm_head.weight")
        if name in language
    }
    return language | cut
