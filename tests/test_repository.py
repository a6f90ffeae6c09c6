"""What the repository says about itself is true: file map, manual, layers, sizes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lorgnette.data.readers import READERS
from lorgnette.data.templates import TEMPLATES
from lorgnette.evaluation.tasks import TASKS
from lorgnette.recipe.reading import read_recipe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lorgnette"


def mapped() -> set[str]:
    """The paths of the README's file map, relative to the repository."""
    block = re.search(r"## File map\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    found, parents = set(), {}
    for line in block.group(1).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        assert len(line.split()) > 2 or name.endswith("/"), f"{name} has no comment"
        parents[depth] = name
        found.add("".join(parents[level] for level in range(depth + 1)))
    return found


def test_the_file_map_equals_the_tree() -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix in {".py", ".j2", ".yaml"} and path.name != "__init__.py"
    }
    folders = {
        f"{path.relative_to(ROOT)}/" for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"
    }
    assert mapped() == files | folders | {"src/lorgnette/", "recipes/", "tools/", "docs/", "bench/", "tests/"}


def test_the_manual_equals_the_code() -> None:
    file = ROOT / "tools" / "make_recipe_manual.py"
    spec = importlib.util.spec_from_file_location("make_recipe_manual", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = "Next: python tools/make_recipe_manual.py"
    assert (ROOT / "docs" / "recipe.md").read_text() == module.manual(), made


def test_modules_import_downward_only() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_are_short_and_say_what_they_are(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 300
    assert text.startswith('"""')


@pytest.mark.parametrize(
    "file", [*(ROOT / "recipes").glob("*.yaml"), PACKAGE / "starter" / "quickstart.yaml"], ids=lambda f: f.name
)
def test_recipes_that_ship_are_right(file: Path) -> None:
    recipe = read_recipe(file)
    for stage in recipe.stages:
        assert stage.chat_template in {None, *TEMPLATES}
        assert {source.format for source in (*stage.data, *stage.validation)} <= set(READERS)
    assert recipe.evaluation
    assert {task.name for task in recipe.evaluation.tasks} <= set(TASKS)


def test_the_readme_names_what_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_starter_models_are_small() -> None:
    weights = list((PACKAGE / "starter").rglob("*.safetensors"))
    assert len(weights) == 2
    assert sum(file.stat().st_size for file in weights) <= 8_000_000
