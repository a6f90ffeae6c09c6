"""The recipe: its frozen surface, mistakes with their lines, hostile files, `--set`, and back to text."""

from __future__ import annotations

import os
import random
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from lorgnette.errors import RecipeError
from lorgnette.recipe.model import Build, Model
from lorgnette.recipe.reading import MAX_BYTES, differences, read_recipe, resolved_yaml
from lorgnette.recipe.sections import Recipe, Source, Stage, recipe_schema
from lorgnette.recipe.yaml_text import parse_yaml, write_yaml

VALID = """\
# a comment
model:
  build:
    vision_tower: starter:vision-tower
    language_model: starter:language-model
    image_size: 112
stages:
  - name: pretrain
    data:
      - {path: easy-vqa, format: easy-vqa-captions, split: no}
    train: {projector: full}
    training:
      learning_rate: 1e-3
      lr_scheduler_type: cosine
      save_strategy: no
      max_steps: 10
  - name: finetune
    data:
      - {path: easy-vqa, format: easy-vqa, weight: 2}
    train: {projector: full, language_model: lora}
    lora: {r: 16, lora_alpha: 32}
    learning_rates: {projector: 2.0e-4}
evaluation:
  tasks:
    - easy-vqa
    - {name: gqa-ru, limit: 20}
"""

LEAVES = [
    "evaluation.batch_size",
    "evaluation.tasks.images",
    "evaluation.tasks.limit",
    "evaluation.tasks.max_new_tokens",
    "evaluation.tasks.name",
    "evaluation.tasks.options",
    "evaluation.tasks.path",
    "evaluation.tasks.prompt",
    "evaluation.tasks.split",
    "evaluation.tasks.task",
    "max_bad_share",
    "model.base",
    "model.build.do_pad",
    "model.build.image_size",
    "model.build.language_model",
    "model.build.vision_feature_layer",
    "model.build.vision_feature_select_strategy",
    "model.build.vision_tower",
    "model.chat_template",
    "model.dtype",
    "model.quantization.bnb_4bit_compute_dtype",
    "model.quantization.bnb_4bit_quant_type",
    "model.quantization.bnb_4bit_use_double_quant",
    "output",
    "seed",
    "stages.chat_template",
    "stages.data.format",
    "stages.data.images",
    "stages.data.limit",
    "stages.data.options",
    "stages.data.path",
    "stages.data.split",
    "stages.data.weight",
    "stages.init_projector",
    "stages.learning_rates.language_model",
    "stages.learning_rates.projector",
    "stages.learning_rates.soft_prompt",
    "stages.learning_rates.vision_tower",
    "stages.lora",
    "stages.max_text_tokens",
    "stages.name",
    "stages.prompt_tuning",
    "stages.share_images",
    "stages.too_long",
    "stages.train.language_model",
    "stages.train.last_layers",
    "stages.train.projector",
    "stages.train.vision_tower",
    "stages.training",
    "stages.validation.format",
    "stages.validation.images",
    "stages.validation.limit",
    "stages.validation.options",
    "stages.validation.path",
    "stages.validation.split",
    "stages.validation.weight",
]


def write(folder: Path, text: str | bytes, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistakes(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    """Return the lines of the report between its head and its last line."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(write(folder, text), overrides)
    head, *lines, last = str(caught.value).splitlines()
    assert head.endswith(f"has {len(lines)} mistake{'s' * (len(lines) != 1)}:")
    plain = parse_yaml(text if isinstance(text, str) else text.decode())
    is_yaml = isinstance(plain.data, dict) or not plain.mistakes
    assert last.startswith("Next: lorgnette recipe schema" if is_yaml else "Next: mend the YAML there")
    return [line.strip() for line in lines]


def with_stage(**changes: Any) -> str:
    """Return a recipe whose one stage is all on line 3."""
    stage = {"name": "tune", "data": [{"path": "p", "format": "f"}], "train": {"projector": "full"}} | changes
    return f"model: {{base: some/llava}}\nstages:\n- {stage!r}\n".replace("None", "null").replace("True", "true")


def test_valid_recipe_is_read_with_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, VALID))
    first, second = recipe.stages
    assert recipe.model == Model(
        build=Build(vision_tower="starter:vision-tower", language_model="starter:language-model", image_size=112)
    )
    assert first.data == (Source(path="easy-vqa", format="easy-vqa-captions", split="no"),)
    assert first.training["learning_rate"] == 0.001
    assert first.training["save_strategy"] == "no"
    assert second.data[0].weight == 2.0
    assert second.lora == {"target_modules": "all-linear", "r": 16, "lora_alpha": 32}
    assert recipe.evaluation is not None
    assert [task.name for task in recipe.evaluation.tasks] == ["easy-vqa", "gqa-ru"]
    assert (recipe.seed, recipe.output, recipe.max_bad_share) == (42, None, 0.01)


def test_sections_are_frozen_and_strict() -> None:
    model = Model(base="x")
    with pytest.raises(ValidationError):
        model.base = "y"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Model.model_validate({"base": 3})


def leaves_of(section: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in section.model_fields.items():
        inner = sections_in(field.annotation)
        found += leaves_of(inner[0], f"{prefix}{name}.") if inner else [prefix + name]
    return found


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def test_surface_is_frozen() -> None:
    # A new field is a promise to every user: add it here and in the changelog, or leave it out.
    assert sorted(leaves_of(Recipe)) == LEAVES


def test_every_field_has_its_manual() -> None:
    schema = recipe_schema()
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        f"{section['title']}.{name}"
        for section in sections
        for name, field in section["properties"].items()
        if not field.get("description")
    ]
    assert undescribed == []


def test_mistakes_are_reported_together_with_their_lines(tmp_path: Path) -> None:
    text = VALID.replace("learning_rate: 1e-3", "learning_rat: 1e-3")
    text = text.replace("train: {projector: full}", "train: {projector: half}")
    assert mistakes(tmp_path, text, "seed=abc") == [
        "line 11, stages.0.train.projector: 'half' is not allowed. Allowed: frozen, lora, full.",
        "line 13, stages.0.training.learning_rat: unknown field (value 0.001). Did you mean 'learning_rate'?",
        "--set seed=abc: must be a whole number, got 'abc'",
    ]


def test_misspelt_field_does_not_hide_what_is_behind_it(tmp_path: Path) -> None:
    stage = with_stage(train={"language_model": "lora"}, training={"learning_rat": 1}).splitlines()[2]
    first, second, third = mistakes(tmp_path, with_stage(data=[{"path": "p", "format": "f", "x": 1}]) + stage)
    assert "line 3, stages.0.data.0.x: unknown field (value 1). Allowed: path, format" in first
    assert "line 4, stages.1.training.learning_rat: unknown field" in second
    assert "line 4, stages.1.lora: is missing, but train.language_model is lora" in third


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"learning_rate": "1e-3x"}}, "training.learning_rate: must be a number, got '1e-3x'"),
        ({"training": {"learning_rate": 0.0}}, "training.learning_rate: must be more than 0"),
        ({"training": {"max_steps": True}}, "training.max_steps: must be a whole number, got true"),
        ({"training": {"bf16": "yes"}}, "training.bf16: must be true or false, got 'yes'"),
        ({"training": {"lr_scheduler_type": "cosin"}}, "'cosin' is not allowed. Did you mean 'cosine'?"),
        ({"training": {"save_strategy": "never"}}, "Allowed: no, steps, epoch, best."),
        ({"training": {"log_level": "loud"}}, "training.log_level: 'loud' is not allowed."),
        ({"training": {"optim": "adam"}}, "Names with 'adam' in them: adamw_torch,"),
        ({"training": {"batch_size": 8}}, "Names with 'batch_size' in them: per_device_train_batch_size"),
        ({"training": {"zzz": 8}}, "Allowed: the fields of transformers.TrainingArguments."),
        ({"training": {"per_device_train_batch_size": 0}}, "must be more than 0, got 0"),
        ({"training": {"report_to": ["wandb", 2]}}, "training.report_to.1: must be text, got 2"),
        ({"training": {"report_to": 2}}, "training.report_to: must be text or a list, got 2"),
        ({"training": {"output_dir": "x"}}, "cannot be set here: use `output` at the top of the recipe"),
        ({"training": {"seed": 1}}, "cannot be set here: use `seed`"),
        ({"training": {"fp16": True}}, "use `bf16: true`"),
        ({"training": {"hub_token": "hf_x"}}, "keep secrets out of it"),
        ({"training": 3}, "training: must be a mapping, got 3"),
        ({"learning_rates": {"vision_tower": 1.0}}, "train.vision_tower is frozen; train that part"),
        ({"lora": {"r": 8}}, "lora: is given, but no part trains as lora"),
        ({"train": {}}, "train: every part is frozen, so nothing would train"),
        (
            {"train": {"tower": "full"}},
            "train.tower: unknown field (value 'full'). Did you mean 'vision_tower'?",
        ),
        ({"name": "../x"}, "name: must be text of the form"),
        ({"data": []}, "data: must be a list of at least 1, got []"),
        ({"data": [{"path": "p"}]}, "data.0.format: is missing"),
        ({"data": [{"path": "p", "format": "f", "weight": 0}]}, "data.0.weight: must be more than 0"),
        ({"data": 5}, "data: must be a list, got 5"),
        ({"data": [{"path": "p", "format": "f", "options": "x"}]}, "data.0.options: must be a mapping, got 'x'"),
        ({"max_text_tokens": -1}, "max_text_tokens: must be more than 0, got -1"),
        ({"share_images": 1}, "share_images: must be true or false, got 1"),
    ],
)
def test_mistake_in_a_stage(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    [found] = mistakes(tmp_path, with_stage(**changes))
    assert found.startswith("line 3, stages.0.")
    assert message in found


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 0}, "lora.r: must be more than 0, got 0"),
        ({"target_modules": 3}, "lora.target_modules: must be a list or text, got 3"),
        ({"modules_to_save": ["x"]}, "cannot be set here: set a part to `full`"),
        ({"task_type": "CAUSAL_LM"}, "cannot be set here"),
        ({"eva_config": {}}, "a Python object, which a recipe cannot hold"),
        ({"lora_alfa": 3}, "Did you mean 'lora_alpha'?"),
        ({"init_lora_weights": "eva"}, "needs Python objects or a look at the data"),
        ({"init_lora_weights": "pissa_niter_4"}, "nothing could read the adapter back; take pissa"),
        ({"bias": "some"}, "'some' is not allowed. Allowed: none, all, lora_only."),
    ],
)
def test_mistake_in_lora(tmp_path: Path, lora: dict[str, Any], message: str) -> None:
    [found] = mistakes(tmp_path, with_stage(train={"language_model": "lora"}, lora=lora))
    assert message in found


def test_lora_takes_what_peft_takes(tmp_path: Path) -> None:
    lora = {
        "r": 8,
        "target_modules": ["q_proj"],
        "init_lora_weights": "pissa",
        "rank_pattern": {"a": 4},
    }
    recipe = read_recipe(write(tmp_path, with_stage(train={"language_model": "lora"}, lora=lora)))
    assert recipe.stages[0].lora == lora


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {}\n", "line 1, model: needs exactly one of base and build; neither is given"),
        (
            "seed: 1\nmodel: {base: x, build: {vision_tower: a, language_model: b}}\n",
            "line 2, model: needs exactly one of base and build; both are given",
        ),
        ("seed: 1\n", "line 1, model: is missing"),
        ("model: {base: x}\nseed: -1\n", "line 2, seed: must be at least 0, got -1"),
        ("model: {base: x}\nevaluation: {tasks: [a, a]}\n", "the name 'a' is taken by tasks.0"),
        ("model: {base: x}\nevaluation: {tasks: [../a]}\n", "tasks.0: must be text of the form"),
        ("model: {base: x, dtype: fp16}\n", "'fp16' is not allowed. Allowed: float32, bfloat16."),
        ("model: {base: x}\nsede: 1\n", "line 2, sede: unknown field (value 1). Did you mean 'seed'?"),
        (
            "model: {build: {vision_tower: a, language_model: b, vision_feature_layer: [1, x]}}",
            "model.build.vision_feature_layer.1: must be a whole number, got 'x'",
        ),
        (
            "model: {build: {vision_tower: a, language_model: b, vision_feature_layer: x}}",
            "model.build.vision_feature_layer: must be a whole number or a list, got 'x'",
        ),
        ("model: {base: x}\nmodel:\n  base: y\n", "line 2, model: given twice; first on line 1"),
        ("model:\n  base: x\n  base: y\n", "line 3, model.base: given twice; first on line 2"),
        ("model: {base: x}\nmax_bad_share: .inf\n", "line 2, max_bad_share: .inf is not a finite number"),
        ("model: {base: x}\nseed: 1e999\n", "line 2, seed: 1e999 is not a finite number"),
        (f"model: {{base: x}}\nseed: {'9' * 5000}\n", "line 2, seed: a number of 5000 characters"),
        (
            "model: {base: x}\noutput: 2024-01-01\nseed: 1:30",
            "seed: must be a whole number, got '1:30'",
        ),
        ('model: {base: "a\\0b"}\n', "line 1, model.base: the text holds a character"),
        ('model: {base: "\\ud800"}\n', "line 1, model.base: the text holds a character"),
        ('model: {base: x}\n"\\e[2J": 1\n', r"line 2, '\x1b[2J': unknown field"),
        ("model: {base: x}\n? [a]\n: 1\n", "line 2: a field name must be plain text"),
        ("model: {base: x}\n<<: {seed: 1}\n", "line 2: '<<' is not read"),
        (
            "model: !!python/object:os.system {base: x}\n",
            "the tag 'tag:yaml.org,2002:python/object",
        ),
        ("model: {base: !!binary aaaa}\n", "the tag 'tag:yaml.org,2002:binary' is not allowed"),
    ],
)
def test_mistake_in_a_recipe(tmp_path: Path, text: str, message: str) -> None:
    [found] = mistakes(tmp_path, text)
    assert message in found


def test_stage_names_differ(tmp_path: Path) -> None:
    stage = with_stage().splitlines()[2]
    [found] = mistakes(tmp_path, with_stage() + stage + "\n")
    assert found == "line 4, stages.1: the name 'tune' is taken by stages.0; names must differ"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the recipe is empty"),
        ("# only a comment\n", "line 1: the recipe is empty"),
        ("- a\n- b\n", 'line 1: the recipe is not a mapping but ["a", "b"]'),
        ("hello", "line 1: the recipe is not a mapping but 'hello'"),
        ("model:\n\tbase: x\n", "line 2: column 1: a tab; YAML indents with spaces only"),
        ("model: {base: x\n", "a bracket or brace is not closed"),
        ("model: a: b\n", "line 1: column 9: a ': ' where no field can start"),
        ("model:\n  base: x\n seed: 1\n", "line 3: column 2: the indentation does not fit"),
        ('model: "x\n', "the text ends inside a quote"),
        ("model: *x\n", "an alias (*name) without its anchor"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("model: \x07\n", r"line 1: the character '\x07' is not allowed in YAML"),
        ('model: "\\UFFFFFFFF"\n', "this is not YAML"),
        ("a: &a [*a]\n", "an alias (*name) stands inside its own anchor"),
        ("a: " + "[" * 5000, "more than 40 levels deep"),
        ("a: [" + "1, " * 20_000 + "]\n", "more than 10,000 values"),
    ],
)
def test_text_that_is_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    [found] = mistakes(tmp_path, text)
    assert message in found


def test_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    [found] = mistakes(tmp_path, "\n".join(lines))
    assert "more than 10,000 values, counting what aliases repeat" in found


def test_alias_repeats_a_section(tmp_path: Path) -> None:
    text = VALID.replace("    training:\n", "    training: &shared\n") + "seed: 1\n"
    text = text.replace("    learning_rates:", "    training: *shared\n    learning_rates:")
    recipe = read_recipe(write(tmp_path, text), ["stages.1.training.max_steps=99"])
    assert recipe.stages[0].training | {"max_steps": 99} == recipe.stages[1].training
    assert recipe.stages[0].training["max_steps"] == 10


def error_of(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, VALID, "llava.yaml")
    assert "does not exist. Did you mean 'llava.yaml'?" in error_of(tmp_path / "lava.yaml")
    assert "does not exist. Next: check the path" in error_of(tmp_path / "no" / "lava.yaml")
    assert "is a folder" in error_of(tmp_path)
    assert "not UTF-8 (line 2)" in error_of(write(tmp_path, b"a: 1\nb: \xff\n"))
    assert "is larger than 1,000,000 bytes" in error_of(write(tmp_path, b"#" * (MAX_BYTES + 1)))
    assert "cannot be read" in error_of(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in error_of(tmp_path / "pipe")


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, b"\xef\xbb\xbfmodel: {base: x}\n")).model.base == "x"


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    recipe = read_recipe(
        path,
        [
            "seed=7",
            "stages.1.lora.r=64",
            "stages.0.training.learning_rate=1e-5",
            "stages.0.validation=[{path: a=b, format: f}]",
            "evaluation.tasks.0={name: easy-vqa, limit: 5}",
            "evaluation.tasks.0.limit=6",
            "output=",
        ],
    )
    assert recipe.seed == 7
    assert recipe.stages[1].lora is not None
    assert recipe.stages[1].lora["r"] == 64
    assert recipe.stages[0].training["learning_rate"] == 1e-5
    assert recipe.stages[0].validation[0].path == "a=b"
    assert recipe.evaluation is not None
    assert recipe.evaluation.tasks[0].limit == 6
    assert recipe.output is None


def test_override_makes_absent_sections(tmp_path: Path) -> None:
    path = write(tmp_path, with_stage() + "evaluation: null\n")
    recipe = read_recipe(path, ["evaluation.tasks=[a]", "stages.0.learning_rates.projector=1e-4"])
    assert recipe.evaluation is not None
    assert recipe.stages[0].learning_rates.projector == 1e-4


def test_override_replaces_base_by_build(tmp_path: Path) -> None:
    path = write(tmp_path, "model: {base: x}\n")
    overrides = ["model.base=null", "model.build={vision_tower: a, language_model: b}"]
    assert read_recipe(path, overrides).model.build is not None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", "--set sede=1: unknown field (value 1). Did you mean 'seed'?"),
        ("stages.0.trainin.max_steps=1", "stages.0.trainin: unknown field"),
        ("stages.5.name=x", "stages is a list; '5' is none of its entries. Allowed: 0 to 1"),
        ("stages.x.name=x", "'x' is none of its entries"),
        ("stages.-1.name=x", "'-1' is none of its entries"),
        ("stages.0.validation.0.path=x", "must be a list"),
        ("evaluation.tasks.0.limit=3", "evaluation.tasks.0 is 'easy-vqa', which has no fields; set it whole"),
        ("seed", "must be PATH=VALUE"),
        ("=3", "must be PATH=VALUE"),
        ("stages..name=3", "must be PATH=VALUE"),
        ("a." * 50_000 + "b=3", "more than 40 levels deep"),
        ("seed={a: 1", "--set seed={a: 1: column 6"),
        ("seed={a: 1, a: 2}", "seed.a: given twice"),
        ("output=\x1b[2J", r"\x1b"),
    ],
)
def test_mistake_in_an_override(tmp_path: Path, override: str, message: str) -> None:
    found = mistakes(tmp_path, VALID, override)
    assert message in found[0]
    assert all(line.startswith("--set ") and line.isprintable() for line in found)


def test_overrides_are_checked_even_if_the_file_is_broken(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "model: {", "seed", "output=[")
    assert len(found) == 3


def test_resolved_recipe_reads_back(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, VALID), ["output='1e-3'", "stages.0.chat_template='no'"])
    text = resolved_yaml(recipe)
    assert read_recipe(write(tmp_path, text)) == recipe
    assert resolved_yaml(read_recipe(write(tmp_path, text))) == text
    assert "max_bad_share: 0.01" in text
    assert text.index("model:") < text.index("stages:") < text.index("seed:")


@pytest.mark.parametrize(
    "value",
    [
        *["1e-3", "no", "0x1f", "010", "1:30", "2024-01-01", "null", "~", "", "a: b", "- x", "<<", "=", "да"],
        *["a\nb", "\t", 1e-05, 1e300, -0.0, 12, True, None, [], {}, [1, [2.5]], {"1": {"y": "off"}}],
    ],
)
def test_yaml_reads_back_what_it_writes(value: object) -> None:
    plain = parse_yaml(write_yaml({"key": value}))
    assert plain.mistakes == []
    assert plain.data == {"key": value}
    assert type(plain.data["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 0.001), ("2E5", 2e5), (".5", 0.5), ("010", 10), ("0x10", 16), ("0o17", 15), ("+1", 1)],
        *[("no", "no"), ("on", "on"), ("True", True), ("~", None), ("1:30", "1:30"), ("1_000", "1_000")],
    ],
)
def test_scalars_are_read_as_yaml_1_2(text: str, value: object) -> None:
    assert parse_yaml(text).data == value
    assert type(parse_yaml(text).data) is type(value)


def test_differences(tmp_path: Path) -> None:
    path = write(tmp_path, VALID)
    recipe = read_recipe(path)
    assert differences(recipe, read_recipe(path)) == []
    other = read_recipe(path, ["seed=7", "stages.1.lora.lora_dropout=0.1", "output=x"])
    assert differences(recipe, other) == [
        "seed: 42 -> 7",
        "output: null -> 'x'",
        "stages.1.lora.lora_dropout: absent -> 0.1",
    ]


def test_schema_lists_the_fields_of_both_libraries() -> None:
    schema = recipe_schema()
    stage = schema["$defs"]["Stage"]["properties"]
    training, lora = stage["training"], stage["lora"]["anyOf"][0]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert training["properties"]["learning_rate"]["type"] == "number"
    assert "cosine" in training["properties"]["lr_scheduler_type"]["enum"]
    assert "output_dir" not in training["properties"]
    assert lora["properties"]["r"]["type"] == "integer"
    assert training["additionalProperties"] is lora["additionalProperties"] is False
    assert {"type": "string"} in schema["$defs"]["Evaluation"]["properties"]["tasks"]["items"]["anyOf"]


def test_stage_is_checked_in_python_too() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        Stage.model_validate(
            {
                "name": "a",
                "data": [{"path": "p", "format": "f"}],
                "train": {"projector": "full"},
                "training": {"learning_rat": 1},
            }
        )


def test_mangled_recipes_raise_nothing_but_recipe_errors(tmp_path: Path) -> None:
    dice = random.Random(0)
    pieces = [
        "\t",
        "{",
        "}",
        "[",
        "]",
        ":",
        "- ",
        "&a ",
        "*a",
        "!!",
        "|",
        "?",
        "%",
        '"',
        "'",
        "\n",
        "\0",
        "1e9",
    ]
    pieces += [
        "null",
        "\ud7ff",
        "\U0001f600",
        ".nan",
        "<<: ",
        "---\n",
        "seed: {}\n",
        " ",
        "0",
        "true",
        "lora",
    ]
    accepted = 0
    for _ in range(200):
        text = VALID
        for _ in range(dice.randint(1, 3)):
            start = dice.randrange(len(text))
            end = min(len(text), start + dice.choice([0, 0, 1, 5, 30]))
            text = text[:start] + dice.choice([*pieces, text[start:end] * 2]) + text[end:]
        override = f"{dice.choice(['output', 'stages.0'])}={dice.choice(pieces)}"
        try:
            recipe = read_recipe(write(tmp_path, text), [override] * dice.randint(0, 1))
        except RecipeError:
            continue
        accepted += 1
        assert read_recipe(write(tmp_path, resolved_yaml(recipe))) == recipe
    assert 0 < accepted < 200


def test_manual_example_is_valid(tmp_path: Path) -> None:
    example = textwrap.dedent("""
        model: {base: deepvk/llava-gemma-2b-lora}
        stages:
          - name: finetune
            data:
              - {path: deepvk/LLaVA-Instruct-ru, format: llava, split: train, images: coco, limit: 2000}
            train: {language_model: lora, projector: frozen, vision_tower: frozen}
            lora: {r: 64, lora_alpha: 128, lora_dropout: 0.05, target_modules: [q_proj, k_proj]}
            max_text_tokens: 384
            training: {per_device_train_batch_size: 1, gradient_accumulation_steps: 8, learning_rate: 1.0e-4}
        evaluation: {tasks: [gqa-ru, mmbench-ru]}
        seed: 42
    """)
    assert read_recipe(write(tmp_path, example)).stages[0].max_text_tokens == 384
