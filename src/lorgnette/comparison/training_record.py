"""What a run folder tells about the training that made a model: losses, parts, data, provenance, recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorgnette.errors import DataError
from lorgnette.recipe.yaml_text import parse_yaml
from lorgnette.run import read_json_lines, read_json_object, read_record


@dataclass(frozen=True, kw_only=True)
class TrainedPart:
    """One part of the model in one stage."""

    stage: str
    part: str
    mode: str
    parameters: int
    trainable: int
    learning_rate: float | None


@dataclass(frozen=True, kw_only=True)
class DataFindings:
    """What became of the samples of one stage; `others` are findings that have no column of their own."""

    stage: str
    read: int
    kept: int
    dropped: Mapping[str, int]
    shortened: int
    tokens: int
    supervised_share: float
    others: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """All that the page says about how a model was made."""

    name: str
    metrics: Sequence[Mapping[str, Any]]
    parts: tuple[TrainedPart, ...]
    data: tuple[DataFindings, ...]
    provenance: Mapping[str, Any]
    recipe: str


def read_training(run: Path) -> TrainingRecord:
    """Read a run folder; what it does not have, such as a stage that never ran, is absent from the record.

    Raises:
        DataError: a file is broken.
    """
    recipe_file, merged = run / "recipe.yaml", read_record(run / "merged")
    recipe = recipe_file.read_text(encoding="utf-8", errors="replace") if recipe_file.is_file() else ""
    files = [run / "stages" / name / "stage.json" for name in _stage_names(recipe)]
    stages = {file: read_json_object(file) for file in files if file.is_file()}
    starts = read_json_lines(run / "provenance.jsonl")
    provenance = (starts[-1] if starts else {}) | ({"merged": merged} if merged else {})
    parts, data = [], []
    for file, stage in stages.items():
        try:
            parts += [_part(stage["stage"], part) for part in stage["parts"]]
            data.append(_findings(stage["stage"], stage["data"]))
            if stage["validation"]:
                data.append(_findings(f"{stage['stage']}, validation", stage["validation"]))
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"{file}: is no record of a stage ({error!r}). Next: run the stage again.") from error
    return TrainingRecord(
        name=run.name,
        metrics=read_json_lines(run / "metrics.jsonl"),
        parts=tuple(parts),
        data=tuple(data),
        provenance=provenance,
        recipe=recipe,
    )


def _stage_names(recipe: str) -> list[str]:
    """Return the names of a recipe's stages in the order in which they run; none where it cannot be read."""
    content = parse_yaml(recipe).data
    stages = content.get("stages") if isinstance(content, dict) else None
    named = [stage.get("name") for stage in stages or [] if isinstance(stage, dict)]
    return [name for name in named if isinstance(name, str) and Path(name).name == name]


def _part(stage: str, content: Mapping[str, Any]) -> TrainedPart:
    rate = content["learning_rate"]
    return TrainedPart(
        stage=stage,
        part=str(content["part"]),
        mode=str(content["mode"]),
        parameters=int(content["parameters"]),
        trainable=int(content["trainable"]),
        learning_rate=None if rate is None else float(rate),
    )


def _findings(stage: str, content: Mapping[str, Any]) -> DataFindings:
    shown = ("read", "kept", "dropped", "shortened", "tokens", "supervised_share")
    return DataFindings(
        stage=stage,
        read=int(content["read"]),
        kept=int(content["kept"]),
        dropped={str(reason): int(count) for reason, count in content["dropped"].items()},
        shortened=int(content["shortened"]),
        tokens=int(content["tokens"]),
        supervised_share=float(content["supervised_share"]),
        others={name: value for name, value in content.items() if name not in shown and value},
    )
