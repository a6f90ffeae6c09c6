"""InternLM2's tokenizer without the code of its folder: a sentencepiece BPE model to a fast tokenizer, checked.

The result must cut sample texts of several scripts exactly as sentencepiece itself does, or it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import SentencePieceExtractor

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
        from google import protobuf  # noqa: F401, PLC0415
    except ImportError as error:
        raise MissingExtra("sentencepiece", "internlm2") from error
    try:
        original = sentencepiece.SentencePieceProcessor(model_file=str(file))
        extractor = SentencePieceExtractor(str(file))
    except Exception as error:  # sentencepiece and protobuf have their own errors
        raise ModelError(f"{file}: is no sentencepiece model ({error}). Next: copy it anew.") from error
    proto = extractor.proto
    if proto.trainer_spec.model_type != 2:
        raise ModelError(f"{file}: is a sentencepiece model of another type than BPE.")
    found = extractor.extract(models.BPE)
    # the folder gives some reserved pieces another name, such as <|im_start|>
    names = {piece: i for piece, i in found["vocab"].items() if i not in added}
    names |= {token.content: i for i, token in added.items()}
    unknown = proto.pieces[proto.trainer_spec.unk_id].piece
    tokenizer = Tokenizer(models.BPE(names, found["merges"], unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = proto.normalizer_spec.add_dummy_prefix
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*back, decoders.Strip(" ", 1, 0)] if prefix else back)
    tokenizer.add_special_tokens([token for _, token in sorted(added.items())])
    for text in PROBES:
        if tokenizer.encode(text).ids != original.encode(text):
            raise ModelError(f"{file}: a fast tokenizer would cut {text!r} in another way than this model does.")
    if settings.get("add_bos_token", True):
        bos = _content(settings.get("bos_token") or "<s>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


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
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read ({error}). Next: copy it anew.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: is no JSON object.")
    return content
