"""The recipe: all that a run needs, as strict, frozen sections. The text under each field is the manual.

Knows the fields, their types and what must fit together; reads no file and loads no model.
`reading.py` turns text into a `Recipe`; `fields.py` knows what `training` and `lora` may hold.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from lorgnette.recipe.fields import (
    Found,
    check_fields,
    fields_schema,
    lora_fields,
    prompt_tuning_fields,
    raise_all,
    training_fields,
)
from lorgnette.recipe.model import Count, Model, Rate, Section, Text

Mode = Literal["frozen", "lora", "full"]


class Source(Section):
    """One set of samples, on disk or on the hub."""

    path: Text
    """A file, a folder or a hub name; a relative path starts where you type the command."""
    format: Text
    """Which reader understands it: llava, instruct, easy-vqa...; or your own, as `package.module:Name`."""
    split: Text | None = None
    """Which part of the set is read; null where the source has no parts."""
    images: Text | None = None
    """The folder of its images, or `coco:FOLDER` (docs/data.md); null: beside the data, or inside it."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the reader, by name; docs/data.md has them."""
    limit: Count | None = None
    """At most so many samples; null: all."""
    weight: Rate = 1.0
    """How often a sample is seen in one epoch: 1.0 once, 2.0 twice, 0.5 a random half, fixed by the seed."""


class Parts(Section):
    """What happens to each part of the model in a stage."""

    vision_tower: Mode = "frozen"
    """`frozen`, `lora` (small matrices beside frozen weights) or `full` (all its weights)."""
    projector: Mode = "frozen"
    """`frozen`, `lora` or `full`; it is small, so `full` costs little."""
    language_model: Mode = "frozen"
    """`frozen`, `lora` or `full`."""
    last_layers: Count | None = None
    """Of the vision tower only the last so many layers learn, counted back from the projected one; null: all."""

    @property
    def modes(self) -> dict[str, Mode]:
        """Return part -> mode."""
        return {
            "vision_tower": self.vision_tower,
            "projector": self.projector,
            "language_model": self.language_model,
        }

    @model_validator(mode="after")
    def _last_layers_train(self) -> Self:
        if self.last_layers is not None and self.vision_tower == "frozen":
            why = "is given, but vision_tower is frozen; set it to lora or full, or leave last_layers out"
            raise_all("Parts", [(("last_layers",), self.last_layers, why)])
        return self


class LearningRates(Section):
    """A learning rate for a part alone; null: `training.learning_rate`."""

    vision_tower: Rate | None = None
    """The highest learning rate of the vision tower."""
    projector: Rate | None = None
    """The highest learning rate of the projector."""
    language_model: Rate | None = None
    """The highest learning rate of the language model."""
    soft_prompt: Rate | None = None
    """The highest learning rate of the soft prompt; it wants a larger one than weights do."""


class Stage(Section):
    """One training phase: what trains, on which data, with which settings."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)]
    """Names the stage's folder in the run: small letters, digits and hyphens."""
    data: Annotated[tuple[Source, ...], Field(strict=False, min_length=1)]
    """What it learns from: one source or more, mixed."""
    validation: Annotated[tuple[Source, ...], Field(strict=False)] = ()
    """What the loss is measured on while it trains; never learned from."""
    train: Parts
    """What happens to each part of the model."""
    init_projector: Text | None = None
    """A projector alone to start from: mm_projector.bin of LLaVA, a .pth of XTuner, or a folder of `model convert`."""
    lora: dict[str, Any] | None = None
    """Any field of peft.LoraConfig; given if and only if a part trains as `lora`."""
    prompt_tuning: dict[str, Any] | None = None
    """Train a soft prompt in front of every sample, alone or beside `lora`: any field of peft.PromptTuningConfig."""
    learning_rates: LearningRates = LearningRates()
    """Learning rates of single parts."""
    chat_template: Text | None = None
    """Another chat template for this stage, such as plain; null: `model.chat_template`."""
    max_text_tokens: Count | None = None
    """The longest text of a sample in tokens; image tokens do not count and are never cut. null: no limit."""
    too_long: Literal["drop_turns", "cut_end", "drop_sample"] = "drop_turns"
    """What a longer sample loses: its last turns, its end, or itself. Each case is counted."""
    share_images: bool = True
    """Samples about the same image share one pass over it; the result is the same, sooner."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Any field of transformers.TrainingArguments, except those that Lorgnette sets itself."""

    @field_validator("training")
    @classmethod
    def _known_training_fields(cls, training: dict[str, Any]) -> dict[str, Any]:
        if training:
            check_fields(training, training_fields())
        return training

    @field_validator("lora")
    @classmethod
    def _known_lora_fields(cls, lora: dict[str, Any] | None) -> dict[str, Any] | None:
        if lora is None:
            return None
        check_fields(lora, lora_fields())
        require_usable_start(lora.get("init_lora_weights"))
        # PEFT's own default differs from model to model and is an error for models that it does not know.
        return {"target_modules": "all-linear"} | lora

    @field_validator("prompt_tuning")
    @classmethod
    def _known_prompt_fields(cls, prompt_tuning: dict[str, Any] | None) -> dict[str, Any] | None:
        if prompt_tuning is None:
            return None
        check_fields(prompt_tuning, prompt_tuning_fields())
        if "num_virtual_tokens" not in prompt_tuning:
            raise_all("Stage", [((), prompt_tuning, "needs num_virtual_tokens, the length of the soft prompt")])
        return prompt_tuning

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        modes = dict(self.train.modes)
        adapted = [part for part, mode in modes.items() if mode == "lora"]
        found: list[Found] = []
        if adapted and self.lora is None:
            why = f"is missing, but train.{adapted[0]} is lora; give `lora: {{r: 16}}`"
            found.append((("lora",), None, why))
        if not adapted and self.lora is not None:
            why = "is given, but no part trains as lora; set one in train, or delete this section"
            found.append((("lora",), None, why))
        if not adapted and "full" not in modes.values() and self.prompt_tuning is None:
            why = "every part is frozen, so nothing would train; set one to lora or full, or give prompt_tuning"
            found.append((("train",), None, why))
        if self.learning_rates.soft_prompt is not None and self.prompt_tuning is None:
            why = "is given, but there is no prompt_tuning; give it, or delete its rate"
            found.append((("learning_rates", "soft_prompt"), self.learning_rates.soft_prompt, why))
        for part, rate in self.learning_rates.model_dump(exclude={"soft_prompt"}).items():
            if rate is not None and modes[part] == "frozen":
                why = f"is given, but train.{part} is frozen; train that part, or delete its rate"
                found.append((("learning_rates", part), rate, why))
        raise_all("Stage", found)
        return self


TASK_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$"
"""What a task may be called: it names a folder too."""
TaskName = Annotated[str, Field(pattern=TASK_NAME)]


class TaskSpec(Section):
    """One benchmark: how it is asked and how much of it."""

    name: TaskName
    """What its results are called: the benchmark, such as easy-vqa; or your own, as `package.module:Name`."""
    task: TaskName | None = None
    """The benchmark where `name` is another, so that one can be measured on several sets; null: the name."""
    path: Text | None = None
    """Where its documents are: a hub name, a folder or a file; null: the task's own."""
    images: Text | None = None
    """The folder of its images; null: beside the documents, or inside them."""
    split: Text | None = None
    """Which part of it is asked; null: the one that its authors score."""
    limit: Count | None = None
    """At most so many documents; null: all."""
    max_new_tokens: Count | None = None
    """The longest answer in tokens; null: the task's own."""
    prompt: Text | None = None
    """The text around each question, with fields such as `{question}`; null: the task's own."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the task can be told, by name, such as `protocol: likelihood`; see docs/benchmarks.md."""

    @property
    def benchmark(self) -> str:
        """Return which benchmark it is, whatever its results are called."""
        return self.task or self.name

    def task_options(self) -> dict[str, Any]:
        """Return what the task is made with: its options, and where its documents are."""
        return self.options | {k: v for k, v in (("path", self.path), ("images", self.images)) if v is not None}


def _task_from_name(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Task = Annotated[TaskSpec, BeforeValidator(_task_from_name, json_schema_input_type=str | TaskSpec)]


class Evaluation(Section):
    """What is measured, before the first stage and after the last."""

    tasks: Annotated[tuple[Task, ...], Field(strict=False, min_length=1)]
    """The benchmarks: names, or mappings with settings."""
    batch_size: Count = 256
    """How many questions are answered at a time."""

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        raise_all("Evaluation", _repeated("tasks", [task.name for task in self.tasks]))
        return self


class Recipe(Section):
    """All that a run needs."""

    model: Model
    """The model to start from."""
    stages: Annotated[tuple[Stage, ...], Field(strict=False)] = ()
    """The training phases, one after another; empty: only build and measure."""
    evaluation: Evaluation | None = None
    """What is measured before and after; null: nothing."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Decides everything that is random: the same seed gives the same run."""
    output: Text | None = None
    """The run folder; null: runs/ and the name of the recipe file without its suffix."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The run stops when a larger share of the samples than this cannot be used."""

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        found = _repeated("stages", [stage.name for stage in self.stages])
        if self.model.quantization is not None:
            for number, stage in enumerate(self.stages):
                if stage.train.language_model == "full":
                    why = "weights in 4 bits cannot train; set it to lora or frozen, or leave model.quantization out"
                    found.append((("stages", number, "train", "language_model"), "full", why))
                if "lora" in stage.train.modes.values() and number + 1 < len(self.stages):
                    why = "has LoRA on a quantized model, and what it leaves would be quantized anew; make it the last"
                    found.append((("stages", number), stage.name, why))
        raise_all("Recipe", found)
        return self


def require_usable_start(start: object) -> None:
    """Refuse ways to begin LoRA that could not be what their name says."""
    why = None
    if start in ("eva", "corda", "loftq", "lora_ga"):
        why = "needs Python objects or a look at the data; take true, gaussian, orthogonal, pissa, olora or mica"
    elif isinstance(start, str) and start.startswith("pissa_niter"):
        why = "takes matrices drawn at random out of the base, so nothing could read the adapter back; take pissa"
    if why is not None:
        raise_all("Stage", [(("init_lora_weights",), start, why)])


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a recipe, with all fields of `training` and `lora`."""
    schema = Recipe.model_json_schema()
    stage = schema["$defs"]["Stage"]["properties"]
    stage["training"] |= fields_schema(training_fields())
    stage["lora"] |= {"anyOf": [fields_schema(lora_fields()), {"type": "null"}]}
    stage["prompt_tuning"] |= {"anyOf": [fields_schema(prompt_tuning_fields()), {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _repeated(field: str, names: list[str]) -> list[Found]:
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    return [
        ((field, index), name, f"the name '{name}' is taken by {field}.{first[name]}; names must differ")
        for index, name in enumerate(names)
        if first[name] != index
    ]
