"""Train the starter language model: a byte-level BPE tokenizer and a small Llama, on made-up text alone.

Answers count in full. Everything else that is read counts a little: predicting words that come again teaches
looking back, long before the answers do.
"""

from collections.abc import Iterator
from itertools import islice
from random import Random

import torch
from starter_texts import END, TURN_END, TURN_START, Document, write_corpus
from starter_training import minimise
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD = "<|pad|>"
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
IGNORED = -100
READING_WEIGHT = 0.3
Encoded = tuple[list[int], list[int]]  # token ids, labels


def train_tokenizer(vocabulary_size: int = 800, documents: int = 6000, seed: int = 1) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE from a sample of the corpus; returns it with the chat template attached."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[END, TURN_START, TURN_END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (text for document in write_corpus(documents, seed) for text, _ in document)
    tokenizer.train_from_iterator(pieces, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def language_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the architecture: a narrow four-layer Llama with tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
    )


def encode(document: Document, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Turn a document into token ids and labels; only answers have labels."""
    ids: list[int] = []
    labels: list[int] = []
    for text, is_answer in document:
        piece = tokenizer.encode(text, add_special_tokens=False)
        ids += piece
        labels += piece if is_answer else [IGNORED] * len(piece)
    return ids, labels


def train_language(
    tokenizer: PreTrainedTokenizerFast, steps: int, batch: int = 64, lr: float = 2e-3, seed: int = 0
) -> LlamaForCausalLM:
    """Train a language model from scratch and return it; every step sees new text."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(language_config(tokenizer))
    batches = _batches(tokenizer, steps, batch, seed)

    def loss_of_next_batch() -> torch.Tensor:
        ids, labels = next(batches)
        logits = model(input_ids=ids).logits[:, :-1]
        ids, labels = ids[:, 1:], labels[:, 1:]
        answered = labels != IGNORED
        read = ~answered & (ids != tokenizer.pad_token_id)
        reading = cross_entropy(logits[read], ids[read])
        return cross_entropy(logits[answered], ids[answered]) + READING_WEIGHT * reading

    minimise("language model", loss_of_next_batch, list(model.parameters()), steps, lr)
    return model.eval()


def _batches(
    tokenizer: PreTrainedTokenizerFast, steps: int, batch: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield padded (B, T) batches of ids and labels; documents of like length share a batch."""
    documents = write_corpus(steps * batch, seed)
    rng = Random(seed)
    while chunk := [encode(d, tokenizer) for d in islice(documents, 40 * batch)]:
        chunk.sort(key=lambda encoded: len(encoded[0]))
        groups = [chunk[start : start + batch] for start in range(0, len(chunk), batch)]
        rng.shuffle(groups)
        for group in groups:
            length = len(group[-1][0])
            ids = [i + [tokenizer.pad_token_id] * (length - len(i)) for i, _ in group]
            labels = [label + [IGNORED] * (length - len(label)) for _, label in group]
            yield torch.tensor(ids), torch.tensor(labels)
