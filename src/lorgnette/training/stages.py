"""One stage: data rendered and counted, parts set and shown, trained, its result written and sealed.

A stage that was interrupted goes on from its last whole checkpoint. What it leaves is in `trained/`: a PEFT folder
where LoRA was trained, else `trained.safetensors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.trainer_utils import SaveStrategy

from lorgnette.data.findings import Action, Judged
from lorgnette.errors import InputError, ModelError, RunError
from lorgnette.models.adapters import add_lora, load_trained
from lorgnette.models.fingerprint import fingerprint
from lorgnette.models.learner import Learner
from lorgnette.models.llava import Llava
from lorgnette.models.lora_targets import lora_targets
from lorgnette.models.picture_shape import Shape
from lorgnette.models.soft_prompt import new_prompt
from lorgnette.models.trainable import (
    SOFT_PROMPT,
    Mode,
    Part,
    freeze_all_but,
    master_weights,
    parts_table,
)
from lorgnette.processes import is_main, processes
from lorgnette.progress import print_table
from lorgnette.recipe.sections import Stage
from lorgnette.run import last_whole_checkpoint, read_json_object, read_record, write_json
from lorgnette.training.arguments import rates_of, training_arguments
from lorgnette.training.callbacks import MetricsFile, ProgressBar
from lorgnette.training.samples import StageData
from lorgnette.training.stopping import StopAtStep
from lorgnette.training.trained import TRAINED_FOLDER, keep_trained
from lorgnette.training.trainer import RowTrainer, steps_of


def run_stage(
    stage: Stage,
    learner: Learner,
    data: StageData,
    folder: Path,
    *,
    seed: int,
    metrics: Path,
    console: Console,
    keep_projector: bool = False,
) -> Learner:
    """Train a stage to its end and return the model with what it learned.

    Args:
        learner: the model that the stage starts from; it is changed in place.
        data: of the stage, rendered with this model or its outline.
        folder: of the stage; checkpoints, `stage.json` and the result go there.
        metrics: the run's metrics.jsonl.
        keep_projector: as in `prepare`.

    Raises:
        InputError: if there are checkpoints of other data or another model.
        NonFiniteLoss, GradientError: if training fails; the last whole checkpoint stays.
    """
    made_from = {
        "data": data.train.content_hash(),
        "base": fingerprint(learner.source),
        "number of processes": str(processes().num_processes),  # they make the batches and their random numbers
        "init_projector": fingerprint(stage.init_projector) if stage.init_projector else "none",
    }
    checkpoint = checkpoint_to_go_on_from(folder, made_from)
    prepared = prepare(stage, learner, keep_projector=keep_projector)
    args = training_arguments(stage, folder, seed)
    steps = steps_of(args, len(data.train))
    modes, rates = modes_of(stage, prepared), rates_of(stage, args.learning_rate)
    parts = parts_table(prepared.module, modes, rates)
    show(stage.name, prepared, parts, data.judged, steps, console)
    about = {
        "stage": stage.name,
        "made_from": made_from,
        "parts": [part.row() for part in parts],
        "data": data.judged.summary(),
        "validation": data.validation_judged.summary() if stage.validation else None,
    }
    if is_main():
        write_json(folder / "stage.json", about)
    bar = ProgressBar(stage.name, console)
    stop = StopAtStep(stage.name, console, bar.ending)
    trainer = RowTrainer(
        prepared,
        args,
        data.train,
        data.validation or None,
        learner.collator(stage.share_images),
        modes,
        rates,
        [bar, MetricsFile(metrics, stage.name), stop],
        share_images=stage.share_images,
    )
    if checkpoint is not None:
        console.print(f"{stage.name}: going on from {checkpoint.name}")
    try:
        with nullcontext() if args.save_strategy == SaveStrategy.NO else stop.listening():
            train_to_end(trainer, checkpoint, steps)
    finally:
        bar.progress.stop()  # a bar that was left behind keeps the terminal's cursor
    if is_main():
        keep_trained(prepared, folder, made_from["base"], modes, learner.template_text(stage.chat_template))
    processes().wait_for_everyone()
    return prepared


def checkpoint_to_go_on_from(folder: Path, made_from: dict[str, str]) -> Path | None:
    """Return the last whole checkpoint of a stage, None if there is none; those that are not whole are deleted.

    Raises:
        InputError: if it was made with other data, another model or another number of processes.
    """
    with processes().main_process_first():  # it deletes
        checkpoint = last_whole_checkpoint(folder)
    if checkpoint is not None:
        require_same_origin(folder, made_from)
    return checkpoint


def train_to_end(trainer: RowTrainer, checkpoint: Path | None, steps: int) -> None:
    """Train until a number of steps is done, those before the checkpoint included.

    Raises:
        RunError: if training ends before.
        NonFiniteLoss, GradientError: if it fails; the last whole checkpoint stays.
    """
    if checkpoint is not None and checkpoint.name == f"checkpoint-{steps}":
        # transformers would make one step more when the last checkpoint is within an epoch
        load_trained(trainer.learner.module, checkpoint)
        trainer.state.global_step = steps
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step != steps:
        raise RunError(
            f"{trainer.args.output_dir}: ended after {trainer.state.global_step} of {steps} steps. Next: call the "
            "command again."
        )
    # with bf16 accelerate wraps the model's forward in autocast; what comes after is to run in the weights' own dtype
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)


def restore_stage(stage: Stage, learner: Learner, folder: Path, *, keep_projector: bool) -> Learner:
    """Bring back the result of a stage that has ended onto the model that it started from.

    Raises:
        InputError: if it was trained on another model.
    """
    base = read_record(folder / TRAINED_FOLDER).get("base_fingerprint")
    if base != fingerprint(learner.source):
        raise InputError(
            f"{folder}: was trained on another model than {learner.source} is now. It is left as it is. Next: bring "
            "that model back, or choose another --output."
        )
    prepared = prepare(stage, learner, keep_projector=keep_projector)
    load_trained(prepared.module, folder / TRAINED_FOLDER)
    return prepared


def require_same_origin(folder: Path, made_from: dict[str, str]) -> None:
    """Refuse to go on from a checkpoint with other data or another model than it was made with.

    Raises:
        InputError: naming what has changed.
    """
    before = read_json_object(folder / "stage.json").get("made_from", {})
    changed = [name for name, value in made_from.items() if before.get(name) != value]
    if changed:
        raise InputError(
            f"{folder}: its checkpoints were made with another {' and '.join(changed)} than there is now. They are "
            "left as they are. Next: bring it back, delete the folder, or choose another --output."
        )


def require_parts(stage: Stage, learner: Learner) -> frozenset[str] | None:
    """Check that a model has what a stage trains; the model may be an outline, and is not changed.

    Returns:
        names of the vision tower's parameters that learn; None where it is frozen.

    Raises:
        ModelError: if a part, a layer or a target of LoRA is not there.
    """
    modes = stage.train.modes
    absent = [part for part, mode in modes.items() if mode != "frozen" and part not in learner.parts]
    if absent:
        raise ModelError(
            f"stages: {stage.name}: train.{absent[0]} is {modes[absent[0]]}, but {learner.source} has only: "
            f"{', '.join(learner.parts)}. Next: leave it out of train."
        )
    tower = learner.learning_tower(modes, stage.train.last_layers)
    if "lora" in modes.values():
        try:
            lora_targets(learner.core, modes, stage.lora or {}, tower)
        except ModelError as error:
            raise ModelError(f"stages: {stage.name}: {error}") from error
    return tower


def prepare(stage: Stage, learner: Learner, *, keep_projector: bool = False) -> Learner:
    """Freeze, unfreeze, add LoRA and a soft prompt as the stage says; what trains becomes float32.

    Args:
        keep_projector: a stage before trained the projector in place; it then lies in the folder of the adapter too.

    Raises:
        ModelError: if the model lacks a part that is to train, or LoRA or the soft prompt does not fit it.
    """
    modes, tower = stage.train.modes, require_parts(stage, learner)
    prompt = learner.soft_prompt
    if stage.prompt_tuning is not None:
        prompt = (prompt or new_prompt(learner.core, stage.prompt_tuning, learner.source)).requires_grad_(True)
        if prompt.length != stage.prompt_tuning["num_virtual_tokens"]:
            raise ModelError(
                f"stages: {stage.name}: prompt_tuning.num_virtual_tokens is "
                f"{stage.prompt_tuning['num_virtual_tokens']}, but the model has a soft prompt of "
                f"{prompt.length}. Next: give that number."
            )
    elif prompt is not None:
        prompt.requires_grad_(False)
    freeze_all_but(learner.core, modes, tower)
    if "lora" not in modes.values():
        master_weights(learner.core)
        return replace(learner, soft_prompt=prompt)
    adapted = add_lora(learner.core, modes, stage.lora or {}, tower=tower, keep_projector=keep_projector)
    return replace(learner, model=adapted, soft_prompt=prompt)


def modes_of(stage: Stage, learner: Learner) -> dict[str, Mode]:
    """Return part -> mode, the soft prompt among them where there is one."""
    modes = {part: mode for part, mode in stage.train.modes.items() if part in learner.parts}
    if learner.soft_prompt is not None:
        modes[SOFT_PROMPT] = "full" if stage.prompt_tuning is not None else "frozen"
    return modes


SQUARED: dict[Shape, str] = {
    "cropped": "cropped: what is outside the middle is not seen",
    "padded": "padded with the mean colour",
    "stretched": "stretched",
}


def show(name: str, learner: Learner, parts: Sequence[Part], judged: Judged, steps: int, console: Console) -> None:
    """Print what trains and on what, before step 1."""
    table = Table(title=f"stage {name}", title_justify="left")
    for column in ("part", "mode", "parameters", "trainable", "learning rate"):
        table.add_column(column, justify="left" if column in ("part", "mode") else "right")
    for part in parts:
        rate = f"{part.learning_rate:g}" if part.learning_rate else "-"
        table.add_row(part.part, part.mode, f"{part.parameters:,}", f"{part.trainable:,}", rate)
    print_table(table, console)
    console.print(
        f"{judged.kept:,} of {judged.read:,} samples, {steps:,} steps; "
        f"{judged.supervised / judged.tokens:.1%} of the tokens are supervised"
    )
    if isinstance(learner, Llava):
        height, width = learner.image_size
        console.print(
            f"pictures that are no squares are {SQUARED[learner.picture_shape]}, to {height} x {width} pixels"
        )
    if judged.shortened:
        console.print(f"shortened: {judged.shortened:,} samples by {judged.shortened_tokens:,} text tokens")
    titles: dict[Action, str] = {"mend": "mended", "leave out": "left out", "drop": "dropped"}
    for action, title in titles.items():
        for reason, count in judged.counts(action).most_common():
            console.print(f"{title}: {count:,} samples: {reason}", markup=False)
    for note in judged.notes:
        console.print(f"note: {note}", markup=False)
