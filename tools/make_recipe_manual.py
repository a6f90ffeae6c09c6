#!/usr/bin/env python3
"""Write docs/recipe.md from the texts under the recipe's fields: `python tools/make_recipe_manual.py`."""

from __future__ import annotations

from pathlib import Path

from lorgnette.recipe import model, sections

WHERE = {
    "Recipe": "top level",
    "Model": "`model`",
    "Build": "`model.build`",
    "Quantization": "`model.quantization`",
    "Stage": "an entry of `stages`",
    "Source": "an entry of `data` or `validation`",
    "Parts": "`train`",
    "LearningRates": "`learning_rates`",
    "Evaluation": "`evaluation`",
    "TaskSpec": "an entry of `tasks`",
}


def manual() -> str:
    """Return the manual as Markdown."""
    lines = ["# The recipe, field by field", "", "Made by `tools/make_recipe_manual.py`; the texts are in the code."]
    for name, where in WHERE.items():
        section = (vars(model) | vars(sections))[name]
        lines += [
            "",
            f"## {name}: {where}",
            "",
            section.__doc__.strip(),
            "",
            "| field | default | |",
            "|---|---|---|",
        ]
        for field, info in section.model_fields.items():
            text = (info.description or "").replace("|", "\\|")
            lines.append(f"| `{field}` | {_default(info)} | {text} |")
    return "\n".join(lines) + "\n"


def _default(info: object) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "null"
    return f"`{value}`" if isinstance(value, str | int | float | bool) else "empty"


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "recipe.md").write_text(manual(), encoding="utf-8")
