"""The repository's own recipes on models of their true size, as a user types it: `model inspect --recipe`.

The folders hold config.json and a tokenizer of the true number of tokens, no weights. The sums by hand: Llama-7B
6,738,415,616, Gemma-2B 2,506,172,416, Qwen1.5-4B 3,950,369,280, InternLM2-1.8B 1,889,110,016, ruT5-large 737,668,096;
CLIP-L/14-336 303,507,456; 64 rows more in the vocabulary where the image token has no place in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GemmaConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

from lorgnette import cli
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.data.templates import TEMPLATES

RECIPES = Path(__file__).parents[1] / "recipes"
CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
LLAMA_7B = {"vocab_size": 32064, "intermediate_size": 11008}
GEMMA_2B = {
    "vocab_size": 256064,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
}
QWEN_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 40,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
}
INTERNLM2 = {
    "vocab_size": 92544,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
RUT5 = {"vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 4096, "num_layers": 24, "num_heads": 16}


def write_tokenizer(folder: Path, tokens: int, *, image: bool = False) -> None:
    """A tokenizer of so many tokens whose words mean nothing; `image` appends the image token to them."""
    special = ["</s>", "<|im_end|>", "<end_of_turn>"]
    letters = [*special, *pre_tokenizers.ByteLevel.alphabet()]
    vocabulary = {piece: n for n, piece in enumerate([*letters, *(f"\u2581{n}" for n in range(tokens - len(letters)))])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    more = [IMAGE_TAG] if image else []
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", additional_special_tokens=[*special[1:], *more]
    )
    fast.chat_template = TEMPLATES["chatml"].jinja
    fast.save_pretrained(folder)


def write_processor(folder: Path) -> None:
    CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}).save_pretrained(folder)


def write_llava(folder: Path, text: Any, image: int) -> str:
    write_tokenizer(folder, image, image=True)
    write_processor(folder)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP_L),
        text_config=text,
        image_token_index=image,
        tie_word_embeddings=text.tie_word_embeddings,
    )
    config.save_pretrained(folder)
    return str(folder)


def write_clip(folder: Path) -> str:
    """CLIP as the hub has it: the tower's configuration is inside that of both sides."""
    write_processor(folder)
    CLIPConfig(vision_config=CLIP_L).save_pretrained(folder)
    return str(folder)


def llava_7b(folder: Path) -> list[str]:
    base = write_llava(folder, LlamaConfig(**LLAMA_7B, tie_word_embeddings=False), 32000)
    return ["--set", f"model.base={base}"]


def llava_gemma(folder: Path) -> list[str]:
    base = write_llava(folder, GemmaConfig(**GEMMA_2B, tie_word_embeddings=True), 256000)
    return ["--set", f"model.base={base}"]


def parts_of(folder: Path, config: Any, tokens: int) -> list[str]:
    write_tokenizer(folder / "words", tokens)
    config.save_pretrained(folder / "words")
    return [
        *("--set", f"model.build.vision_tower={write_clip(folder / 'eyes')}"),
        *("--set", f"model.build.language_model={folder / 'words'}"),
    ]


def qwen_clip(folder: Path) -> list[str]:
    return parts_of(folder, Qwen2Config(**QWEN_4B, tie_word_embeddings=False), 151646)


def internlm2_clip(folder: Path) -> list[str]:
    return parts_of(folder, LlamaConfig(**INTERNLM2, tie_word_embeddings=False), 92544)


def rut5(folder: Path) -> list[str]:
    write_tokenizer(folder, 32000)
    T5Config(**RUT5, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1).save_pretrained(folder)
    return ["--set", f"model.base={folder}"]


@pytest.mark.parametrize(
    ("recipe", "write", "counts"),
    [
        # LoRA 128 on 7 matrices of 32 layers, beside them the projector
        ("llava-1.5-7b-lora", llava_7b, [(7_063_427_072 + 319_815_680, 319_815_680 + 20_979_712)]),
        ("llava-gemma-2b-ru", llava_gemma, [(2_816_106_496 + 78_446_592, 78_446_592)]),
        (
            "qwen1.5-4b-clip",
            qwen_clip,
            [(4_263_056_896, 9_180_160), (4_263_056_896 + 125_173_760, 125_173_760 + 9_180_160)],
        ),
        ("internlm2-1.8b-qlora", internlm2_clip, [(2_199_175_168, 6_295_552), (2_779_955_200, 587_075_584)]),
        ("rut5-large-instruct", rut5, [(740_047_872, 2_379_776)]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_recipes_train_what_they_say_of_models_of_true_size(
    recipe: str,
    write: Any,
    counts: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli.model, "settle", lambda: None)  # it changes filters of warnings for the whole process
    words = ["model", "inspect", "--recipe", str(RECIPES / f"{recipe}.yaml"), *write(tmp_path / "model")]
    monkeypatch.setattr("sys.argv", ["lorgnette", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    shown = capsys.readouterr().out
    assert not stop.value.code
    sums = [line for line in shown.splitlines() if line.startswith("│ all")]
    assert len(sums) == len(counts)
    for line, (total, trainable) in zip(sums, counts, strict=True):
        assert f" {total:,} " in line
        assert f" {trainable:,} (" in line
