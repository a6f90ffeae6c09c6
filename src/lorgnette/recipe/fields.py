"""What `training` and `lora` may hold: the fields of TrainingArguments and LoraConfig, as they are installed.

Knows which of them Lorgnette sets itself, and why. There is no list of ours to keep up to date: a field
that a new version of transformers or PEFT brings is allowed at once, with its type.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import types
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from lorgnette.errors import nearest
from lorgnette.recipe.yaml_text import FieldPath

Found = tuple[FieldPath, object, str]
"""A mistake inside a section: path, value, sentence."""

_FP16 = "float16 overflows in training; use `bf16: true`, or leave both out for float32"
_HUB = "nothing is uploaded while training; when the run is done, type `hf upload`"
_PARTS = "Lorgnette does what `train` says"
_OBJECT = "it takes a Python object, which a recipe cannot hold"

TRAINING_SET_BY_US = {
    "output_dir": "use `output` at the top of the recipe",
    "seed": "use `seed` at the top of the recipe",
    "data_seed": "use `seed` at the top of the recipe",
    "remove_unused_columns": "Lorgnette makes the batches itself",
    "label_names": "Lorgnette makes the labels itself",
    "resume_from_checkpoint": "`lorgnette run` picks up where it stopped",
    "do_train": _PARTS,
    "do_eval": "give the stage `validation` data",
    "do_predict": "use `evaluation`",
    "label_smoothing_factor": "Lorgnette's loss is the plain one",
    "local_rank": "the launcher (torchrun, accelerate) sets it",
    "fp16": _FP16,
    "fp16_full_eval": _FP16,
    "push_to_hub": _HUB,
    "hub_token": "a recipe is copied into the run folder; keep secrets out of it (`hf auth login`)",
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
}

_PEFT_SET_BY_US = {
    "task_type": "it follows from the model",
    "peft_type": "it follows from the section",
    "auto_mapping": "it follows from the model",
    "peft_version": "PEFT writes it",
    "base_model_name_or_path": "use `model` at the top of the recipe",
    "revision": "use `model` at the top of the recipe",
    "inference_mode": "Lorgnette sets it when it loads",
}
LORA_SET_BY_US = _PEFT_SET_BY_US | {
    "modules_to_save": "set a part to `full` in `train`; its weights are saved with the adapter",
}
PROMPT_TUNING_SET_BY_US = _PEFT_SET_BY_US | dict.fromkeys(
    (
        "token_dim",
        "num_layers",
        "num_attention_heads",
        "num_transformer_submodules",
        "tokenizer_name_or_path",
        "modules_to_save",
    ),
    "it follows from the model",
)

_PLAIN_TYPES: dict[Any, Any] = {
    **{simple: simple for simple in (int, float, bool, str, type(None))},
    Any: JsonValue,
    dict: dict[str, JsonValue],
    list: list[JsonValue],
    tuple: list[JsonValue],
}

_COUNT = Annotated[int, Field(gt=0)]
_RATE = Annotated[float, Field(ge=0)]

# Where the library's annotation is wider than what it accepts, or (fsdp) narrower than its documentation.
TRAINING_TYPES: dict[str, Any] = {
    "per_device_train_batch_size": _COUNT,
    "per_device_eval_batch_size": _COUNT,
    "gradient_accumulation_steps": _COUNT,
    "learning_rate": Annotated[float, Field(gt=0)],
    "num_train_epochs": _RATE,
    "fsdp": bool | str | None,
}
LORA_TYPES: dict[str, Any] = {
    "r": _COUNT,
    "lora_dropout": Annotated[float, Field(ge=0, lt=1)],
    "target_modules": Annotated[list[str], Field(min_length=1)] | str,
}
PROMPT_TUNING_TYPES: dict[str, Any] = {"num_virtual_tokens": _COUNT}


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields that a section may hold, which are those of a class in another library."""

    owner: str
    types: dict[str, Any]
    descriptions: dict[str, str]
    refused: dict[str, str]


@functools.cache
def training_fields() -> Fields:
    """Return the fields of `transformers.TrainingArguments`."""
    # Imported here because it takes seconds, and a recipe with a syntax error or without stages does without.
    from transformers.training_args import TrainingArguments  # noqa: PLC0415

    return _fields_of(TrainingArguments, "transformers.TrainingArguments", TRAINING_SET_BY_US, TRAINING_TYPES)


@functools.cache
def lora_fields() -> Fields:
    """Return the fields of `peft.LoraConfig`."""
    from peft import LoraConfig  # noqa: PLC0415  (seconds, as above)

    return _fields_of(LoraConfig, "peft.LoraConfig", LORA_SET_BY_US, LORA_TYPES)


@functools.cache
def prompt_tuning_fields() -> Fields:
    """Return the fields of `peft.PromptTuningConfig`."""
    from peft import PromptTuningConfig  # noqa: PLC0415  (seconds, as above)

    return _fields_of(PromptTuningConfig, "peft.PromptTuningConfig", PROMPT_TUNING_SET_BY_US, PROMPT_TUNING_TYPES)


def check_fields(values: dict[str, Any], fields: Fields) -> None:
    """Compare a section with the fields of its library.

    Raises a pydantic `ValidationError` with all mistakes. Inside a validator, pydantic puts the path of the
    section in front of each.
    """
    errors: list[InitErrorDetails] = []
    for name, value in values.items():
        if name in fields.refused:
            errors.append(_mistake((name,), value, f"cannot be set here: {fields.refused[name]}"))
        elif name not in fields.types:
            errors.append(
                _mistake(
                    (name,),
                    value,
                    suggestion(name, fields.types) or f" Allowed: the fields of {fields.owner}.",
                    "unknown_field",
                )
            )
        else:
            errors += _type_errors(name, value, fields.types[name])
    if errors:
        raise ValidationError.from_exception_data(fields.owner, errors)


def fields_schema(fields: Fields) -> dict[str, Any]:
    """Return the JSON schema of a section that takes these fields and no others."""
    properties = {
        name: {"description": fields.descriptions[name]} | _inlined(TypeAdapter(hint).json_schema())
        for name, hint in fields.types.items()
    }
    return {"type": "object", "properties": properties, "additionalProperties": False}


def suggestion(word: str, allowed: Iterable[str]) -> str:
    """Return a sentence with the names that were perhaps meant, or an empty string if none is like it."""
    holding = [name for name in allowed if word in name and len(word) > 2]
    if len(holding) > 1:
        return f" Names with '{word}' in them: {', '.join(holding)}."
    return nearest(word, holding or allowed) or (f" Did you mean '{holding[0]}'?" if holding else "")


def raise_all(section: str, found: Sequence[Found]) -> None:
    """Raise one pydantic `ValidationError` with all of these mistakes, if there are any."""
    if found:
        errors = [_mistake(path, value, text) for path, value, text in found]
        raise ValidationError.from_exception_data(section, errors)


def _mistake(path: FieldPath, value: object, text: str, kind: str = "mistake") -> InitErrorDetails:
    # The text goes in as a value, because pydantic reads braces in a message as its own placeholders.
    return InitErrorDetails(type=PydanticCustomError(kind, "{text}", {"text": text}), loc=path, input=value)


def _type_errors(name: str, value: object, hint: Any) -> list[InitErrorDetails]:
    try:
        TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        return [
            InitErrorDetails(type=each["type"], loc=(name, *each["loc"]), input=each["input"], ctx=each.get("ctx", {}))
            for each in error.errors(include_url=False)
        ]
    return []


def _fields_of(owner: Any, title: str, set_by_us: dict[str, str], own_types: dict[str, Any]) -> Fields:
    hints = get_type_hints(owner)
    found: dict[str, Any] = {}
    descriptions: dict[str, str] = {}
    refused = dict(set_by_us)
    for field in dataclasses.fields(owner):
        if field.name in set_by_us or not field.init:
            continue
        hint = own_types.get(field.name) or _recipe_type(hints[field.name], field.metadata.get("choices"))
        if hint is None:
            refused[field.name] = _OBJECT
            continue
        found[field.name] = hint
        descriptions[field.name] = " ".join(str(field.metadata.get("help", "")).split())
    return Fields(title, found, descriptions, refused)


def _recipe_type(hint: Any, choices: Sequence[str] | None = None) -> Any:
    """Return the part of an annotation that YAML can write, or None where it can write nothing of it."""
    if choices is not None:
        return _literal(choices) | None if type(None) in get_args(hint) else _literal(choices)
    if get_origin(hint) in (Union, types.UnionType):
        return _union_type(get_args(hint))
    if get_origin(hint) is Literal:
        # PEFT documents 'pissa_niter_[number of iters]' as a choice: a pattern, which only PEFT can check.
        return str if any("[" in str(choice) for choice in get_args(hint)) else hint
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _literal([member.value for member in hint])
    container = get_origin(hint) or hint
    if container is list and get_args(hint):
        return list[_recipe_type(get_args(hint)[0]) or JsonValue]  # type: ignore[misc]
    return _PLAIN_TYPES.get(container)


def _literal(choices: Sequence[str]) -> Any:
    literal: Any = Literal  # mypy would read a subscript of Literal itself as a type
    return literal[tuple(choices)]


def _union_type(members: Sequence[Any]) -> Any:
    # `SchedulerType | str` says str for the sake of the spelling; what is accepted are the enum's values.
    has_enum = any(isinstance(member, type) and issubclass(member, Enum) for member in members)
    parts = [_recipe_type(member) for member in members if not (has_enum and member is str)]
    parts = [part for part in parts if part is not None]
    if set(parts) <= {type(None)}:
        return None
    return functools.reduce(operator.or_, parts)


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Replace pydantic's reference to `JsonValue` by an empty schema (anything): no `$defs` are needed."""
    schema.pop("$defs", None)

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {} if "$ref" in node else {key: walk(value) for key, value in node.items()}
        return [walk(item) for item in node] if isinstance(node, list) else node

    return {key: walk(value) for key, value in schema.items()}
