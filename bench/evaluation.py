"""Answers per second on questions that share images: Lorgnette against plain transformers, on a small model.

    python bench/evaluation.py                           2 images of 31 questions each, as in GQA's test-dev split
    python bench/evaluation.py --patches 64 --images 8   the same, all texts and images nine times as short

Three contestants answer the same questions greedily in float32: `generate` one question at a time, `generate` on
left-padded batches of the size that is fastest here, and Lorgnette. All must give the same tokens before anything is
timed. They take turns; the median counts. Images are decoded beforehand for all, which favours the plain ways: they
would decode an image once a question. The model is random, its parts have the proportions of a LLaVA on Gemma-2B with
a CLIP tower (one key-value head, head of the vocabulary 26 % of the language model), and token counts are those of
GQA: 576 tokens an image, 35 of template, 25 of question, about 3 of answer; with fewer patches, template and questions
shrink alike.

Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import CLIPVisionConfig, GemmaConfig, LlavaConfig, LlavaForConditionalGeneration

from lorgnette.data.rendered import IGNORE_INDEX, Rendered
from lorgnette.inference.engine import batches, generate
from lorgnette.models.forward import PixelScale, prepare_for_rows
from lorgnette.models.loading import Llava

VOCABULARY, IMAGE, PAD = 6000, 5999, 0
PATCHES, TEMPLATE_TOKENS, QUESTION_TOKENS, MAX_NEW_TOKENS = 576, 35, (15, 35), 4
STOP = frozenset(range(1, VOCABULARY, 6))
"""A sixth of all tokens ends an answer: a random model then says two or three."""
PATCH = 14
PADDED_BATCHES = (4, 8, 16, 31)
BATCH_SIZE = 256  # the default of `lorgnette evaluate`
BARS = {"one by one": 6.0, "left-padded": 3.0}
SCALE = PixelScale(1 / 255, (0.5,) * 3, (0.25,) * 3)
# torch does not count its CPU kernel of attention
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v)
}

Answers = list[tuple[int, ...]]


def make_model(patches: int, seed: int) -> Llava:
    """Make a random LLaVA: Gemma of width 256 with six layers, CLIP of width 128 with six layers."""
    torch.manual_seed(seed)
    tower = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=PATCH * round(patches**0.5),
        patch_size=PATCH,
    )
    language = GemmaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
        initializer_range=0.1,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=tower, text_config=language, image_token_index=IMAGE)
    ).eval()
    return Llava(model, None, patches, SCALE, "random")


def make_questions(images: int, questions: int, patches: int, seed: int) -> list[Rendered]:
    """Draw questions, those about an image scattered as in a shuffled file."""
    random = np.random.default_rng(seed)
    template, shortest, longest = (round(tokens * patches / PATCHES) for tokens in (TEMPLATE_TOKENS, *QUESTION_TOKENS))
    head = random.integers(1, IMAGE, template).tolist()
    made = []
    for number in random.permutation(images * questions).tolist():
        words = random.integers(1, IMAGE, random.integers(shortest, longest, endpoint=True)).tolist()
        ids = (*head, *[IMAGE] * patches, *words)
        made.append(Rendered(f"{number}", (f"{number % images}",), ids, (IGNORE_INDEX,) * len(ids)))
    return made


class Contest:
    """The model, the questions and the pixels that every contestant is given."""

    def __init__(self, llava: Llava, prompts: Sequence[Rendered], seed: int) -> None:
        self.llava, self.prompts = llava, prompts
        side = llava.model.config.vision_config.image_size
        random = np.random.default_rng(seed)
        names = sorted({name for prompt in prompts for name in prompt.images})
        self.pixels = {name: random.integers(0, 256, (3, side, side), dtype=np.uint8) for name in names}
        self.normalised = {name: SCALE.normalise(torch.from_numpy(bytes_)) for name, bytes_ in self.pixels.items()}

    def ours(self) -> Answers:
        """Answer with Lorgnette's engine."""
        prepare_for_rows(self.llava.model)
        answers: Answers = [()] * len(self.prompts)
        for batch in batches(self.prompts, BATCH_SIZE):
            chosen = [self.prompts[index] for index in batch]
            made = generate(self.llava, chosen, self.pixels.__getitem__, MAX_NEW_TOKENS, STOP)
            for index, answer in zip(batch, made, strict=True):
                answers[index] = answer.ids
        return answers

    def padded(self, batch_size: int) -> Answers:
        """Answer with `generate` on left-padded batches of questions of about one length."""
        answers: Answers = [()] * len(self.prompts)
        order = sorted(range(len(self.prompts)), key=lambda index: len(self.prompts[index].input_ids))
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            for index, answer in zip(batch, self._plain([self.prompts[index] for index in batch]), strict=True):
                answers[index] = answer
        return answers

    def one_by_one(self) -> Answers:
        """Answer with `generate`, one question a call."""
        return self.padded(1)

    @torch.inference_mode()
    def _plain(self, prompts: Sequence[Rendered]) -> Answers:
        self.llava.model.model.language_model.set_attn_implementation("sdpa")
        longest = max(len(prompt.input_ids) for prompt in prompts)
        ids = torch.full((len(prompts), longest), PAD)
        for place, prompt in enumerate(prompts):
            ids[place, longest - len(prompt.input_ids) :] = torch.tensor(prompt.input_ids)
        made = self.llava.model.generate(
            input_ids=ids,
            attention_mask=(ids != PAD).long(),
            pixel_values=torch.stack([self.normalised[prompt.images[0]] for prompt in prompts]),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            eos_token_id=sorted(STOP),
            pad_token_id=PAD,
        )
        return [_before_stop(row) for row in made[:, longest:].tolist()]


def _before_stop(row: list[int]) -> tuple[int, ...]:
    end = next((place for place, token in enumerate(row) if token in STOP), len(row))
    return tuple(row[:end])


def timed(contestant: Callable[[], Answers]) -> float:
    """Return the seconds that a contestant takes for all questions."""
    start = time.perf_counter()
    contestant()
    return time.perf_counter() - start


def counted(contestant: Callable[[], Answers]) -> tuple[Answers, int]:
    """Return a contestant's answers and the floating point operations that it executes for them."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        answers = contestant()
    return answers, counter.get_total_flops()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--questions", type=int, default=31, help="questions an image")
    parser.add_argument("--patches", type=int, default=PATCHES, help="tokens an image, a square number")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; its own choice if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    return parser.parse_args()


def main() -> int:
    """Check, time, print; return 1 if a bar is missed."""
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    contest = Contest(
        make_model(args.patches, args.seed),
        make_questions(args.images, args.questions, args.patches, args.seed),
        args.seed,
    )
    sizes = {size: timed(lambda size=size: contest.padded(size)) for size in PADDED_BATCHES}
    best = min(sizes, key=lambda size: sizes[size])
    contestants: dict[str, Callable[[], Answers]] = {
        "ours": contest.ours,
        "one by one": contest.one_by_one,
        "left-padded": lambda: contest.padded(best),
    }
    checked = {name: counted(contestant) for name, contestant in contestants.items()}
    expected = checked["one by one"][0]
    flops = {name: operations for name, (_, operations) in checked.items()}
    for name, (answers, _) in checked.items():
        if answers != expected:
            sys.exit(f"{name}: other tokens than one by one; nothing is timed.")
    count = len(contest.prompts)
    print(
        f"{count} questions about {args.images} images, {args.patches} tokens an image, "
        f"{statistics.mean(map(len, expected)):.1f} tokens an answer, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; all answers are the same tokens; left-padded batches of {best} are fastest"
    )
    rounds = [{name: timed(contestant) for name, contestant in contestants.items()} for _ in range(args.repeats)]
    figures = {}
    for name in contestants:
        seconds = [one[name] for one in rounds]
        figures[name] = {
            "questions_per_second": count / statistics.median(seconds),
            "slowest": count / max(seconds),
            "fastest": count / min(seconds),
            "gflop_per_question": flops[name] / count / 1e9,
            "times_as_fast": statistics.median(seconds) / statistics.median([one["ours"] for one in rounds]),
            "times_the_flops": flops[name] / flops["ours"],
        }
    print(f"{'':12}{'questions/s':>12}{'(slowest to fastest)':>24}{'GFLOP each':>12}{'ours is':>10}{'FLOPs':>10}")
    for name, f in figures.items():
        spread = f"({f['slowest']:.1f} to {f['fastest']:.1f})"
        print(
            f"{name:12}{f['questions_per_second']:12.1f}{spread:>24}{f['gflop_per_question']:12.2f}"
            f"{f['times_as_fast']:9.1f}x{f['times_the_flops']:9.1f}x"
        )
    missed = [f"{name}: {bar}x" for name, bar in BARS.items() if figures[name]["times_as_fast"] < bar]
    print(
        f"bars missed: {', '.join(missed)}"
        if missed
        else "bars met: " + ", ".join(f"{b}x {n}" for n, b in BARS.items())
    )
    if args.output:
        about = {"machine": platform.platform(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        args.output.write_text(json.dumps(vars(args) | about | {"figures": figures}, indent=2, default=str) + "\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
