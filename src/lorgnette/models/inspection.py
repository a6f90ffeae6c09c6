"""What a model is, in a table: parts, parameters, dtype, template, image tokens, fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lorgnette.models.learner import Learner, load_model
from lorgnette.models.llava import Llava
from lorgnette.models.loading import fingerprint, load_config
from lorgnette.models.trainable import Mode, Part, freeze_all_but, parts_table
from lorgnette.progress import print_table
from lorgnette.run import read_json_object

SCALES_IMAGE_FEATURES_BEFORE_5_4 = ("gemma",)
"""Language models whose input transformers before 5.4 scaled, image features included."""


@dataclass(frozen=True, slots=True)
class Description:
    """Facts about a model, each with its name."""

    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


def describe(learner: Learner, parts: Sequence[Part], dtype: str) -> Description:
    """Collect what there is to say about a model.

    Args:
        parts: its table of parts, see `parts_table`.
        dtype: in which its frozen weights are held.
    """
    facts = [("model", learner.source)]
    record = Path(learner.source) / "lorgnette.json"
    if record.is_file():
        facts.append(("kind", str(read_json_object(record).get("kind", "unknown"))))
    if isinstance(learner, Llava):
        config = learner.core.config
        height, width = learner.image_size
        facts += [
            ("architecture", f"LLaVA: {config.vision_config.model_type} + {config.text_config.model_type}"),
            ("images", f"{height} x {width} pixels, {learner.image_tokens} tokens an image"),
            ("projected", f"layer {config.vision_feature_layer}, {config.vision_feature_select_strategy}"),
            ("chat template", _first_line(learner.template_text() or "")),
        ]
        old = config.text_config.model_type not in SCALES_IMAGE_FEATURES_BEFORE_5_4
        facts.append(("reads in", f"transformers {'4.57 and 5' if old else '5.4 and newer'}"))
    else:
        facts += [("architecture", f"text to text: {learner.core.config.model_type}"), ("reads in", "transformers")]
    facts.append(("dtype", dtype))
    if learner.soft_prompt is not None:
        facts.append(("soft prompt", f"{learner.soft_prompt.length} virtual tokens"))
    facts.append(("fingerprint", fingerprint(learner.source)))
    return Description(tuple(facts), tuple(parts))


def outline(source: str) -> Description:
    """Describe a model by its shapes alone; weights are not read, but for the fingerprint.

    Raises:
        ModelError: if the folder is missing or holds something else.
    """
    learner = load_model(source, meta=True)
    frozen: dict[str, Mode] = dict.fromkeys(learner.parts, "frozen")
    freeze_all_but(learner.core, frozen)
    parts = parts_table(learner.model, frozen, {})
    return describe(learner, parts, str(load_config(source).dtype or "float32").removeprefix("torch."))


def show_description(found: Description, console: Console) -> None:
    """Print facts, then the table of parts with its sums."""
    for name, value in found.facts:
        console.print(f"{name + ':':16}{value}", markup=False, soft_wrap=True, highlight=False)
    table = Table(show_footer=True)
    total, trainable = sum(p.parameters for p in found.parts), sum(p.trainable for p in found.parts)
    table.add_column("part", footer="all")
    table.add_column("mode")
    table.add_column("parameters", footer=f"{total:,}", justify="right")
    table.add_column("trainable", footer=f"{trainable:,} ({trainable / total:.2%})", justify="right")
    for part in found.parts:
        table.add_row(part.part, part.mode, f"{part.parameters:,}", f"{part.trainable:,}")
    print_table(table, console)


def _first_line(template: str) -> str:
    line = template.strip().splitlines()[0] if template.strip() else "none"
    return line if len(line) <= 60 else f"{line[:57]}..."
