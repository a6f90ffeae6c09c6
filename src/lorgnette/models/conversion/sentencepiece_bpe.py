"""InternLM2's tokenizer without the code of its folder: a sentencepiece BPE model to a fast tokenizer, checked.

The result must cut sample texts of several scripts exactly as sentencepiece itself does, or it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from lorgnette.errors import MissingExtra, ModelError

PROBES = (
    "What is in the picture? Two cats, 12.5 kg; e.g. on the table.",
    "Что на фото? Ёлка и две кошки — «на столе».",
    "图片里有什么？桌子上有两只猫。",
    " leading,  double   spaces\n\ttab and line\r\n",
    "émigré naïve ½ ☃ 😀 \u200b end",
    "def f(x):\n    return {'a': x ** 2}",
)
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def read_tokenizer(folder: Path) -> Any:
    """Load an InternLM2 folder's tokenizer as a fast one: from tokenizer.json, else from tokenizer.model.

    Raises:
        ModelError: if the folder has neither, or the sentencepiece model is none that a fast tokenizer can equal.
        MissingExtra: if tokenizer.model is to be read and sentencepiece is not installed.
    """
    settings = _read_json(folder / "tokenizer_config.json")
    named = {name: _content(settings[name]) for name in SPECIAL if settings.get(name)}
    listed = settings.get("additional_special_tokens") or []
    if (folder / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    elif (folder / "tokenizer.model").is_file():
        tokenizer = _from_sentencepiece(folder / "tokenizer.model", _added(settings), settings)
    else:
        raise ModelError(
            f"{folder}: there is neither tokenizer.json nor tokenizer.model. Next: copy it into the folder."
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=[_content(token) for token in listed],
        clean_up_tokenization_spaces=False,
        **named,
    )
    fast.chat_template = settings.get("chat_template")
    return fast


def _from_sentencepiece(file: Path, added: dict[int, AddedToken], settings: dict[str, Any]) -> Tokenizer:
    try:
        import sentencepiece  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("sentencepiece", "internlm2") from error
    try:
        original = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{file}: is no sentencepiece model ({error}). Next: copy it anew.") from error
    pieces = [original.id_to_piece(i) for i in range(original.get_piece_size())]
    # the folder gives some reserved pieces another name, such as <|im_start|>
    learned = {piece: i for i, piece in enumerate(pieces) if i not in added}
    tokenizer = Tokenizer(
        models.BPE(
            learned | {token.content: i for i, token in added.items()},
            merges_of(learned),
            unk_token=pieces[original.unk_id()],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = original.encode("x", out_type=str)[0].startswith("▁")
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    tokenizer.add_special_tokens([token for _, token in sorted(added.items())])
    for text in PROBES:
        if tokenizer.encode(text).ids != original.encode(text):
            raise ModelError(
                f"{file}: a fast tokenizer would cut {text!r} in another way than this model does. Allowed: a BPE "
                "model without normalisation, as InternLM2's."
            )
    if settings.get("add_bos_token", True):
        bos = _content(settings.get("bos_token") or "<s>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def merges_of(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return the merges of a BPE vocabulary, first learned first: every way to make a piece of two others."""
    found = []
    for piece, rank in vocabulary.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                found.append((rank, vocabulary[left], vocabulary[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _added(settings: dict[str, Any]) -> dict[int, AddedToken]:
    return {
        int(number): AddedToken(_content(token), special=True, normalized=False)
        for number, token in (settings.get("added_tokens_decoder") or {}).items()
    }


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read ({error}). Next: copy it anew.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: is no JSON object.")
    return content
