"""InternLM2 in Llama's layout computes what its own fused attention computes; LoRA on it too; no code of the folder."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from formats import largest_difference, write_adapter
from internlm2_reference import SIZES, logits, make_tensors, write_folder
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from lorgnette.errors import ModelError
from lorgnette.models.assembly import assemble
from lorgnette.models.conversion.convert import Options, convert
from lorgnette.models.conversion.internlm2 import llama_config, rows_of
from small import TEXT, make_tokenizer, make_tower

IDS = [1, 7, 30, 12, 5, 77, 3, 3, 50]
CHAT = ["<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]


def llama_logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("bias", [False, True])
def test_logits_are_those_of_the_fused_attention(tmp_path: Path, bias: bool) -> None:
    tokenizer = make_tokenizer(tmp_path / "in", bos=True)
    tensors = make_tensors(len(tokenizer), bias=bias)
    write_folder(tmp_path / "in", tensors, bias=bias)
    done = convert(str(tmp_path / "in"), "hf", tmp_path / "out", Options())
    assert "internlm2" in done.said[0]
    assert not list((tmp_path / "out").glob("*.py"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["model_type"], config["rope_theta"]) == ("llama", 1000000)
    expected = logits(tensors, tensors["model.tok_embeddings.weight"][IDS])
    assert largest_difference(llama_logits(tmp_path / "out"), expected) <= 1e-5
    # tensor by tensor: joined again, the three matrices are the fused one
    found = load_file(tmp_path / "out" / "model.safetensors")
    for n in range(2):
        for kind in ("weight", "bias") if bias else ("weight",):
            q, k, v = (found[f"model.layers.{n}.self_attn.{part}_proj.{kind}"] for part in "qkv")
            pieces = [
                piece
                for head in range(2)
                for piece in (q[16 * head : 16 * head + 16], k[8 * head : 8 * head + 8], v[8 * head : 8 * head + 8])
            ]
            assert torch.equal(torch.cat(pieces), tensors[f"model.layers.{n}.attention.wqkv.{kind}"])
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == sorted(tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"]))


def test_rows_of_wqkv_are_sorted_as_in_its_modeling_file() -> None:
    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, hidden_size=12, head_dim=3)
    taken = {part: take(torch.arange(24)).tolist() for part, take in rows_of(config).items()}
    assert taken == {
        "q_proj": [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17],
        "k_proj": [6, 7, 8, 18, 19, 20],
        "v_proj": [9, 10, 11, 21, 22, 23],
    }


def test_scaled_positions_are_those_of_llama() -> None:
    content = SIZES | {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "vocab_size": 92544}
    rope = llama_config(content, "x").rope_parameters
    assert rope == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000.0}
    with pytest.raises(ModelError, match="yarn"):
        llama_config(content | {"rope_scaling": {"type": "yarn"}}, "x")


def lora_tensors(model_tensors: dict[str, torch.Tensor], modules: list[str], r: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    found = {}
    for name, weight in model_tensors.items():
        module = name.removesuffix(".weight")
        if module.split(".")[-1] in modules:
            rows, columns = weight.shape
            prefix = f"base_model.model.{module}"
            found[f"{prefix}.lora_A.weight"] = 0.3 * torch.randn(r, columns, generator=generator)
            found[f"{prefix}.lora_B.weight"] = 0.3 * torch.randn(rows, r, generator=generator)
    return found


def test_lora_on_the_fused_matrix_computes_the_same(tmp_path: Path) -> None:
    modules = ["wqkv", "wo", "w1", "w2", "w3", "output"]
    tokenizer = make_tokenizer(tmp_path / "in", bos=True)
    tensors = make_tensors(len(tokenizer))
    write_folder(tmp_path / "in", tensors)
    lora = lora_tensors(tensors, modules)
    write_adapter(tmp_path / "lora", lora, {"r": 4, "lora_alpha": 16, "target_modules": modules}, pickled=True)
    merged = dict(tensors)
    for name in lora:
        if name.endswith("lora_A.weight"):
            weight = f"{name.removeprefix('base_model.model.').removesuffix('.lora_A.weight')}.weight"
            merged[weight] = tensors[weight] + 4 * lora[name.replace("lora_A", "lora_B")] @ lora[name]
    expected = logits(merged, tensors["model.tok_embeddings.weight"][IDS])
    convert(str(tmp_path / "in"), "hf", tmp_path / "llama", Options())
    convert(str(tmp_path / "lora"), "hf", tmp_path / "peft", Options(base=str(tmp_path / "in")))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        found = adapted(torch.tensor([IDS])).logits[0]
    assert largest_difference(found, expected) <= 1e-5
    saved = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    a = [saved[f"base_model.model.model.layers.0.self_attn.{part}_proj.lora_A.weight"] for part in "qkv"]
    assert torch.equal(a[0], a[1])
    assert torch.equal(a[0], a[2])
    # the same adapter for a LLaVA on it: the head has more rows there
    make_tower(tmp_path / "tower")
    from lorgnette.models.saving import save_llava

    llava = assemble(str(tmp_path / "tower"), str(tmp_path / "llama"))
    save_llava(llava, tmp_path / "llava", {})
    convert(str(tmp_path / "lora"), "hf", tmp_path / "peft2", Options(base=str(tmp_path / "llava")))
    wide = load_file(tmp_path / "peft2" / "adapter_model.safetensors")["base_model.model.lm_head.lora_B.weight"]
    assert wide.shape[0] == llava.core.config.text_config.vocab_size > len(tokenizer)
    assert torch.equal(wide[: len(tokenizer)], saved["base_model.model.lm_head.lora_B.weight"])
    assert not wide[len(tokenizer) :].any()


def test_dora_on_the_fused_matrix_computes_the_same(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path / "in", bos=True)
    tensors = make_tensors(len(tokenizer))
    write_folder(tmp_path / "in", tensors)
    lora = lora_tensors(tensors, ["wqkv"])
    merged = dict(tensors)
    for n in range(2):
        weight, prefix = f"model.layers.{n}.attention.wqkv.weight", f"base_model.model.model.layers.{n}.attention.wqkv"
        changed = tensors[weight] + 2 * lora[f"{prefix}.lora_B.weight"] @ lora[f"{prefix}.lora_A.weight"]
        magnitude = changed.norm(dim=1) * torch.linspace(0.5, 1.5, changed.shape[0])
        lora[f"{prefix}.lora_magnitude_vector"] = magnitude
        merged[weight] = changed * (magnitude / changed.norm(dim=1))[:, None]
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["wqkv"], "use_dora": True}
    write_adapter(tmp_path / "lora", lora, settings)
    convert(str(tmp_path / "in"), "hf", tmp_path / "llama", Options())
    convert(str(tmp_path / "lora"), "hf", tmp_path / "peft", Options(base=str(tmp_path / "llama")))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")
    adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        found = adapted(torch.tensor([IDS])).logits[0]
    expected = logits(merged, tensors["model.tok_embeddings.weight"][IDS])
    assert largest_difference(found, expected) <= 1e-5


@pytest.fixture(scope="session")
def sentencepiece_model() -> bytes:
    """A BPE model as InternLM2's: byte fallback, no dummy prefix, reserved pieces that the folder renames."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=1.0,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=[f"[UNUSED_TOKEN_{n}]" for n in range(4)],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def test_the_tokenizer_is_made_without_its_code(tmp_path: Path, sentencepiece_model: bytes) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(sentencepiece_model)
    original = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model)
    reserved = [original.piece_to_id(f"[UNUSED_TOKEN_{n}]") for n in range(4)]
    added = {str(i): {"content": name, "special": True} for i, name in zip(reserved, CHAT, strict=True)}
    added |= {str(i): {"content": name, "special": True} for i, name in enumerate(["<unk>", "<s>", "</s>"])}
    settings = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "added_tokens_decoder": added,
        "additional_special_tokens": CHAT,
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    write_folder(folder, make_tensors(original.get_piece_size()))
    convert(str(folder), "hf", tmp_path / "out", Options())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "Что  на фото? 图片 cat\n"
    assert tokenizer(text)["input_ids"] == [1, *original.encode(text)]
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer.convert_tokens_to_ids(CHAT) == reserved
    turn = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert turn == "<s><|im_start|>user\nx<|im_end|>\n"
    assert tokenizer("<|im_start|>user", add_special_tokens=False)["input_ids"][0] == reserved[3]
    # it is an ordinary language model now
    make_tower(tmp_path / "tower")
    assert assemble(str(tmp_path / "tower"), str(tmp_path / "out")).image_tokens == 4


def test_spoiled_folders_are_refused(tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "in", bos=True)
    tensors = make_tensors(400)
    name = "model.layers.1.attention.wqkv.weight"
    cases = [
        ({n: t for n, t in tensors.items() if n != name}, r"missing: model\.layers\.1\.self_attn\.q_proj\.weight"),
        (tensors | {name.replace("wqkv", "wqk"): tensors[name]}, r"layers\.1\.attention\.wqk\.weight"),
        (tensors | {name: tensors[name][:-1]}, r"63 rows instead of 64"),
    ]
    for changed, says in cases:
        write_folder(tmp_path / "in", changed)
        with pytest.raises(ModelError, match=says):
            convert(str(tmp_path / "in"), "hf", tmp_path / "out", Options())
    with pytest.raises(ModelError, match="Llama's layout only"):
        convert(str(tmp_path / "in"), "llava", tmp_path / "out", Options())
    with pytest.raises(ModelError, match="model convert"):
        assemble(str(make_tower(tmp_path / "tower")), str(tmp_path / "in"))
