"""Commands about recipes: recipe schema, recipe show."""

from __future__ import annotations

import json

from lorgnette.cli.terminal import Overrides, RecipeFile


def schema() -> None:
    """Print the JSON schema of recipes, for your editor.

    Example: lorgnette recipe schema > recipe.schema.json
    """
    from lorgnette.recipe.sections import recipe_schema  # noqa: PLC0415

    print(json.dumps(recipe_schema(), indent=2, ensure_ascii=False))


def show(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Check a recipe and print it with all that Lorgnette fills in.

    What `training` and `lora` do not name is as transformers and PEFT have it.

    Example: lorgnette recipe show recipes/smollm2-dinov2-easyvqa.yaml --set seed=7
    """
    from lorgnette.recipe.reading import read_recipe, resolved_yaml  # noqa: PLC0415

    print(resolved_yaml(read_recipe(recipe, overrides or [])), end="")
