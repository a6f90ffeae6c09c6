"""Small random models of the true architectures, and conversations, made here: no network, no GPU."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5ForConditionalGeneration,
)

from lorgnette.data.rendering import Renderer
from lorgnette.data.sample import IMAGE_TAG, Origin, Sample, Turn
from lorgnette.data.templates import TEMPLATES
from lorgnette.models.loading import Llava

TEXT = [
    "What is this? A cat. Where? On the table. Что на фото? Красная чашка на столе.",
    "what color is the shape? blue red green teal yes no circle rectangle triangle is there not a shape",
    "USER: ASSISTANT: A chat between a curious user and an artificial intelligence assistant. gives helpful",
]
WORDS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LANGUAGE_MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"num_key_value_heads": 2, "tie_word_embeddings": False}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "gemma": (GemmaForCausalLM, GemmaConfig, {"num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": True}),
}
EYES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TOWERS = {
    "clip": (CLIPVisionModel, CLIPVisionConfig, {"intermediate_size": 48}),
    "siglip": (SiglipVisionModel, SiglipVisionConfig, {"intermediate_size": 48}),
    "dinov2": (Dinov2Model, Dinov2Config, {"mlp_ratio": 2}),
}


def make_tokenizer(folder: Path, *, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with ChatML tokens; with `bos` it puts <s> in front, as Llama's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[2:],
    )
    fast.chat_template = TEMPLATES["chatml"].jinja
    fast.save_pretrained(folder)
    return fast


def make_language_model(folder: Path, kind: str = "llama", *, bos: bool = False) -> Path:
    """Write a random causal language model with its tokenizer."""
    torch.manual_seed(1)
    tokenizer = make_tokenizer(folder, bos=bos)
    model_class, config_class, more = LANGUAGE_MODELS[kind]
    config = config_class(vocab_size=len(tokenizer), initializer_range=0.2, **WORDS, **more)
    model_class(config).save_pretrained(folder)
    return folder


def make_text_to_text(folder: Path) -> Path:
    """Write a random T5 of two layers with a tokenizer that adds no end of sequence by itself."""
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_tower(folder: Path, kind: str = "clip", **sizes: int) -> Path:
    """Write a random vision tower with its image processor; `sizes` override those of `EYES`."""
    torch.manual_seed(2)
    tower_class, config_class, more = TOWERS[kind]
    settings = EYES | more | sizes
    side = settings["image_size"]
    tower_class(config_class(**settings)).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=[0.4, 0.5, 0.6]
    ).save_pretrained(folder)
    return folder


def conversation(name: str, images: list[str], *texts: str) -> Sample:
    """A sample of alternating user and assistant texts; tags go before the first question unless given."""
    first = texts[0] if IMAGE_TAG in "".join(texts) else f"{IMAGE_TAG}\n" * len(images) + texts[0]
    spoken = [first, *texts[1:]]
    turns = tuple(Turn("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(spoken))
    return Sample(name, tuple(images), turns, Origin("test.json", 0))


def renderer_of(llava: Llava, **more: object) -> Renderer:
    """A renderer with the model's own template."""
    return Renderer(llava.template(), llava.core.config.image_token_id, llava.image_tokens, **more)  # type: ignore[arg-type]
