"""Make the two starter models of `make quickstart` from nothing: no download, no data set, fixed seeds.

    python tools/make_starter_models.py [OUT]

writes two ordinary Hugging Face folders, `OUT/vision-tower` and `OUT/language-model` (float16). OUT is
`src/lorgnette/starter` unless given. The tower has seen drawn pictures with captions only, the language model
made-up text only; neither has seen easy-VQA, which the quickstart tunes and tests them on.
"""

import argparse
import time
from pathlib import Path

import torch
from starter_language import train_language, train_tokenizer
from starter_tower import image_processor, train_tower

DEFAULT_OUT = Path(__file__).resolve().parents[1] / "src" / "lorgnette" / "starter"
TOWER_STEPS = 1100
LANGUAGE_STEPS = 2600


def make_vision_tower(folder: Path, steps: int) -> None:
    """Train the vision tower and save it with its image processor."""
    train_tower(steps).to(torch.float16).save_pretrained(folder)
    image_processor().save_pretrained(folder)


def make_language_model(folder: Path, steps: int) -> None:
    """Train tokenizer and language model and save them together."""
    tokenizer = train_tokenizer()
    train_language(tokenizer, steps).to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Make both models and say how long it took and how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--only", choices=["vision-tower", "language-model"], help="make just this one")
    parser.add_argument("--tower-steps", type=int, default=TOWER_STEPS)
    parser.add_argument("--language-steps", type=int, default=LANGUAGE_STEPS)
    arguments = parser.parse_args()
    began = time.time()
    if arguments.only != "language-model":
        make_vision_tower(arguments.out / "vision-tower", arguments.tower_steps)
    if arguments.only != "vision-tower":
        make_language_model(arguments.out / "language-model", arguments.language_steps)
    for weights in sorted(arguments.out.glob("*/model.safetensors")):
        print(f"{weights}: {weights.stat().st_size / 1e6:.2f} MB")
    print(f"done in {time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
