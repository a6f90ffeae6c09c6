"""A soft prompt: trained vectors that stand before every sample (Lester et al. 2021, arXiv 2104.08691).

In a row its places hold negative ids (-1 is its first vector, -2 its second ...): no token has such an id, and samples
that share an image share the prompt with it. It is made, saved and loaded in PEFT's own format; plain PEFT puts it
before the whole sequence too, so the same folder works there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PromptEmbedding, PromptTuningConfig, load_peft_weights
from safetensors.torch import save_file
from torch import nn

from lorgnette.data.rendered import soft_prompt_ids
from lorgnette.errors import ModelError

PROMPT_FOLDER = "prompt"
"""Where a model's or a stage's folder holds its soft prompt."""
WEIGHTS = "adapter_model.safetensors"
TENSOR = "prompt_embeddings"


class SoftPrompt(nn.Module):
    """Trained vectors in front of a sample: (P, D), P virtual tokens of the language model's hidden size D."""

    def __init__(self, config: PromptTuningConfig, word_embeddings: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.embedding: nn.Embedding = PromptEmbedding(config, word_embeddings).embedding

    @property
    def length(self) -> int:
        """Return the number of virtual tokens."""
        return self.embedding.num_embeddings

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the ids that stand for it in a row."""
        return soft_prompt_ids(self.length)

    def fill(self, input_ids: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Put the vectors where their ids stand: (1, T), (1, T, D) -> (1, T, D)."""
        places = input_ids < 0
        vectors = self.embedding(-input_ids[places] - 1)
        return embeddings.masked_scatter(places.unsqueeze(-1), vectors.to(embeddings.dtype))


class Whole(nn.Module):
    """A model and the soft prompt in front of it as one module, for optimisers, checkpoints and several processes.

    The trainer of transformers refuses a model in 4 bits of which only the projector trains; inside this it does not.
    """

    def __init__(self, model: nn.Module, prompt: SoftPrompt | None) -> None:
        super().__init__()
        self.model = model
        self.prompt = prompt

    def forward(self, **inputs: Any) -> Any:
        """Call the model; its embeddings already hold the prompt."""
        return self.model(**inputs)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Switch on the model's own activation checkpointing, as the trainer asks."""
        self.model.gradient_checkpointing_enable(**settings)  # type: ignore[operator]


def new_prompt(core: Any, settings: Mapping[str, Any], tokenizer_source: str) -> SoftPrompt:
    """Make a soft prompt, its start as `prompt_tuning_init` says.

    Args:
        core: a `LlavaForConditionalGeneration`, or an encoder-decoder: its prompt stands in the encoder only.
        settings: fields of `peft.PromptTuningConfig`.
        tokenizer_source: folder or hub name whose tokenizer reads `prompt_tuning_init_text`.

    Raises:
        ModelError: if PEFT refuses the settings.
    """
    text = core.config.get_text_config()
    try:
        config = PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM" if core.config.is_encoder_decoder else "CAUSAL_LM",
            token_dim=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_attention_heads=text.num_attention_heads,
            num_transformer_submodules=1,
            tokenizer_name_or_path=tokenizer_source,
            **settings,
        )
        prompt = SoftPrompt(config, core.get_input_embeddings())
    except (ValueError, TypeError, OSError) as error:
        raise ModelError(f"prompt_tuning: PEFT refuses these settings: {error}") from error
    return prompt.to(core.device, torch.float32)


def save_prompt(prompt: SoftPrompt, folder: Path) -> None:
    """Write a soft prompt as a PEFT folder."""
    folder.mkdir(parents=True, exist_ok=True)
    prompt.config.save_pretrained(str(folder))
    tensor = prompt.embedding.weight.detach().cpu().contiguous()
    save_file({TENSOR: tensor}, folder / WEIGHTS, metadata={"format": "pt"})


def load_prompt(prompt: SoftPrompt, folder: Path) -> None:
    """Read a soft prompt's vectors into one of the same size.

    Raises:
        ModelError: if the folder is missing, broken or holds something else.
    """
    vectors = _vectors(folder)
    if vectors.shape != prompt.embedding.weight.shape:
        raise ModelError(
            f"{folder}: a soft prompt of {tuple(vectors.shape)}. Allowed here: {tuple(prompt.embedding.weight.shape)}."
        )
    with torch.no_grad():
        prompt.embedding.weight.copy_(vectors)


def read_prompt(core: Any, folder: Path) -> SoftPrompt:
    """Make the soft prompt that a folder holds.

    Raises:
        ModelError: if the folder is broken, holds something else, or does not fit the model.
    """
    vectors = _vectors(folder)
    config = PeftConfig.from_pretrained(str(folder))
    hidden = core.config.get_text_config().hidden_size
    if not isinstance(config, PromptTuningConfig) or vectors.shape != (config.num_virtual_tokens, hidden):
        raise ModelError(
            f"{folder}: is no soft prompt for a model of hidden size {hidden}. Next: load it with the model it was "
            "trained on."
        )
    config.inference_mode = True  # its start needs no reading of text or drawing of tokens
    prompt = SoftPrompt(config, core.get_input_embeddings()).to(core.device, torch.float32)
    with torch.no_grad():
        prompt.embedding.weight.copy_(vectors)
    return prompt.requires_grad_(False)


def _vectors(folder: Path) -> torch.Tensor:
    try:
        vectors: torch.Tensor = load_peft_weights(str(folder), device="cpu")[TENSOR]
    except Exception as error:  # what a broken folder makes the libraries raise has no common class
        raise ModelError(
            f"{folder}: holds no soft prompt that can be read ({error}). Next: copy the folder anew."
        ) from error
    return vectors
