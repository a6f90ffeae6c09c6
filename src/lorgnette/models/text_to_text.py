"""Text-to-text models (T5 and every `AutoModelForSeq2SeqLM`) by the same road as a LLaVA.

`TextToText` offers what stages, measuring and merging ask of a `Llava`; its batches are padded pairs instead of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lorgnette.data.pairs import PairCollator, PairRenderer, Pairs
from lorgnette.data.rendering import TooLong
from lorgnette.errors import ModelError
from lorgnette.models.loading import explained, load_config, require_clean_load
from lorgnette.models.saving import name_tokenizer_for_both
from lorgnette.models.soft_prompt import PROMPT_FOLDER, SoftPrompt, Whole, read_prompt, save_prompt
from lorgnette.run import RECORD, whole_folder, write_json


@dataclass(frozen=True)
class TextToText:
    """An encoder-decoder with all that is needed to feed it; see `Llava` for what the attributes are."""

    model: Any
    tokenizer: Any
    source: str
    soft_prompt: SoftPrompt | None = None

    parts = ("language_model",)
    quantization = None

    @property
    def module(self) -> nn.Module:
        """Return everything that has parameters as one module."""
        return self.model if self.soft_prompt is None else Whole(self.model, self.soft_prompt)

    @property
    def core(self) -> Any:
        """Return the model of transformers itself, inside PEFT or not."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Return the ids that stand for the soft prompt in front of every source."""
        return () if self.soft_prompt is None else self.soft_prompt.ids

    def template_text(self, name: str | None = None) -> None:
        """Refuse a chat template: the model has none.

        Raises:
            ModelError: if one is named.
        """
        if name is not None:
            raise ModelError(f"chat_template {name}: a text-to-text model has none. Next: leave it out.")

    def renderer(
        self,
        template: str | None = None,
        max_text_tokens: int | None = None,
        too_long: TooLong = "drop_turns",
        soft_prompt: tuple[int, ...] | None = None,
    ) -> PairRenderer:
        """Return what turns samples into sources and targets."""
        self.template_text(template)
        ids = self.prompt_ids if soft_prompt is None else soft_prompt
        return PairRenderer(self.tokenizer, max_text_tokens, too_long, ids)

    def collator(self, share_images: bool = True) -> PairCollator:
        """Return what makes batches; there are no images to share."""
        return PairCollator(self.core.config.pad_token_id, self.core.config.decoder_start_token_id)

    def encoder_inputs(self, pairs: Pairs) -> dict[str, torch.Tensor]:
        """Embed sources, the soft prompt in its places: (B, S, D), with their mask (B, S)."""
        embedding = self.core.get_input_embeddings()
        embeddings = embedding(pairs.input_ids.clamp(min=0))
        if self.soft_prompt is not None:
            embeddings = self.soft_prompt.fill(pairs.input_ids, embeddings)
        return {"inputs_embeds": embeddings, "attention_mask": pairs.attention_mask}

    def logits(self, batch: Pairs, model: nn.Module | None = None) -> torch.Tensor:
        """Compute logits at the supervised places of a batch: (L, V).

        Args:
            model: what to call; this one's own, or a wrapper around it.
        """
        called = self.module if model is None else model
        output = called(**self.encoder_inputs(batch), decoder_input_ids=batch.decoder_input_ids, use_cache=False)
        return output.logits[batch.supervised]  # type: ignore[no-any-return]

    def learning_tower(self, modes: Mapping[str, str], last_layers: int | None) -> None:
        """Name no parameters: there is no vision tower."""

    def use_template(self, text: str) -> None:
        """Do nothing: the model has no chat template."""

    def hold_still(self, modes: Mapping[str, str]) -> None:
        """Do nothing: there is no frozen tower whose dropout would have to rest."""

    def merged(self, plain: Any) -> TextToText:
        """Return the same with a plain model in place of the one with adapters."""
        return replace(self, model=plain)

    def save(self, folder: Path, record: dict[str, Any], max_shard_size: str = "4GB") -> None:
        """Write model, tokenizer, soft prompt and `lorgnette.json`, whole or not at all."""
        with whole_folder(folder) as unfinished:
            self.core.save_pretrained(unfinished, max_shard_size=max_shard_size)
            self.tokenizer.save_pretrained(unfinished)
            name_tokenizer_for_both(unfinished / "tokenizer_config.json")
            if self.soft_prompt is not None:
                save_prompt(self.soft_prompt, unfinished / PROMPT_FOLDER)
            write_json(unfinished / RECORD, record)


def load_text_to_text(source: str, dtype: torch.dtype | str = "auto", *, meta: bool = False) -> TextToText:
    """Load an encoder-decoder strictly, with the soft prompt that its folder may hold.

    Args:
        meta: only the shapes, on the meta device; no weights are read.

    Raises:
        ModelError: if the folder is missing, incomplete, truncated, or holds something else.
    """
    with explained(source, "model"):
        if meta:
            with torch.device("meta"):
                model = AutoModelForSeq2SeqLM.from_config(load_config(source))
        else:
            model, report = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=dtype, output_loading_info=True)
            require_clean_load(source, report)
    with explained(source, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{source}: the tokenizer has no end of sequence, so answers would never end. Next: set eos_token in "
            "tokenizer_config.json."
        )
    prompt = Path(source) / PROMPT_FOLDER
    soft_prompt = read_prompt(model, prompt) if prompt.is_dir() else None
    return TextToText(model.eval(), tokenizer, source, soft_prompt)
