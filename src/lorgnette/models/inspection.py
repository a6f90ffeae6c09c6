"""What a model is, in a table: parts, parameters, dtype, template, image tokens, fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lorgnette.data.templates import named_like
from lorgnette.models.adapted import is_adapted, outline_adapted
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.gemma import NEW, OLD, image_feature_scale, saved_before_5_4
from lorgnette.models.learner import Learner, load_model
from lorgnette.models.llava import Llava
from lorgnette.models.loading import dtype_name, load_config
from lorgnette.models.trainable import Mode, Part, freeze_all_but, parts_table
from lorgnette.progress import print_table
from lorgnette.run import read_record


@dataclass(frozen=True, slots=True)
class Description:
    """Facts about a model, each with its name."""

    facts: tuple[tuple[str, str], ...]
    parts: tuple[Part, ...]


def describe(learner: Learner, parts: Sequence[Part], dtype: str, *, assembled: bool = True) -> Description:
    """Collect what there is to say about a model.

    Args:
        parts: its table of parts, see `parts_table`.
        dtype: in which its frozen weights are held.
        assembled: whether it is there already, and not only its two halves.
    """
    facts = [("model", learner.source)]
    record = read_record(Path(learner.source))
    facts += [
        (name.replace("_", " "), str(record[name]))
        for name in ("kind", "base", "base_fingerprint", "quantization")
        if record.get(name)
    ]
    if isinstance(learner, Llava):
        config = learner.core.config
        height, width = learner.image_size
        facts += [
            ("architecture", f"LLaVA: {config.vision_config.model_type} + {config.text_config.model_type}"),
            ("images", f"{height} x {width} pixels, {learner.picture_shape}; {learner.image_tokens} tokens an image"),
            ("projected", f"layer {config.vision_feature_layer}, {config.vision_feature_select_strategy}"),
            ("chat template", _template_name(learner.template_text())),
        ]
        facts.append(("reads in", _reads_in(config, learner.source)))
    else:
        facts += [
            ("architecture", f"text to text: {learner.core.config.model_type}"),
            ("reads in", "transformers 4.57 and 5"),
        ]
    facts.append(("dtype", dtype))
    if learner.soft_prompt is not None:
        facts.append(("soft prompt", f"{learner.soft_prompt.length} virtual tokens"))
    facts.append(("fingerprint", fingerprint(learner.source) if assembled else "known once it is assembled"))
    return Description(tuple(facts), tuple(parts))


def describe_source(source: str) -> Description:
    """Describe a model, or what was trained on one, by its shapes alone; weights are read for the fingerprint only.

    Raises:
        ModelError: if the folder is missing or holds something else.
    """
    if is_adapted(source):
        learner, parts = outline_adapted(source)
        return describe(learner, parts, str(read_record(Path(source)).get("dtype", "that of its base")))
    learner = load_model(source, meta=True)
    frozen: dict[str, Mode] = dict.fromkeys(learner.parts, "frozen")
    freeze_all_but(learner.core, frozen)
    parts = parts_table(learner.model, frozen, {})
    return describe(learner, parts, dtype_name(load_config(source).dtype or "float32"))


def show_description(found: Description, console: Console) -> None:
    """Print facts, then the table of parts with its sums."""
    for name, value in found.facts:
        console.print(f"{name + ':':18}{value}", markup=False, soft_wrap=True, highlight=False)
    table = Table(show_footer=True)
    total, trainable = sum(p.parameters for p in found.parts), sum(p.trainable for p in found.parts)
    table.add_column("part", footer="all")
    table.add_column("mode")
    table.add_column("parameters", footer=f"{total:,}", justify="right")
    table.add_column("trainable", footer=f"{trainable:,} ({trainable / total:.2%})", justify="right")
    for part in found.parts:
        table.add_row(part.part, part.mode, f"{part.parameters:,}", f"{part.trainable:,}")
    print_table(table, console)


def _reads_in(config: Any, source: str) -> str:
    """Say which transformers give the model's answers: those of a LLaVA on Gemma changed, see `gemma.py`."""
    if image_feature_scale(config.text_config) == 1.0:
        return "transformers 4.57 and 5"
    # an assembled one comes from no file, and is written for the installed version
    old = config.transformers_version is not None and saved_before_5_4(config, source)
    return OLD if old else NEW


def _template_name(template: str | None) -> str:
    """Return the name of a chat template of ours; another is the model's own."""
    return "none" if not template else named_like(template) or "its own"
