"""One stage: data rendered and counted, parts set and shown, trained, its result written and sealed.

A stage that was interrupted goes on from its last whole checkpoint. What it leaves is in `trained/`: a PEFT folder
where LoRA was trained, else `trained.safetensors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import TrainingArguments

from lorgnette.data.dataset import Findings, RenderedDataset, RenderedSamples, RowCollator, render_all, weighted
from lorgnette.data.encodings import Encodings, cache_file
from lorgnette.data.images import open_image
from lorgnette.data.readers import read_samples
from lorgnette.data.rendering import Rendered, Renderer
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, InputError, RecipeError, RunError
from lorgnette.models.adapters import add_lora, load_trained
from lorgnette.models.loading import Llava, fingerprint
from lorgnette.models.trainable import PARTS, Mode, Part, freeze_all_but, master_weights, parts_table
from lorgnette.processes import is_main, processes
from lorgnette.progress import progress_bar
from lorgnette.recipe.sections import Source, Stage
from lorgnette.run import last_whole_checkpoint, read_json, write_json
from lorgnette.training.callbacks import MetricsFile, ProgressBar
from lorgnette.training.trained import TRAINED_FOLDER, keep_trained
from lorgnette.training.trainer import RowTrainer, steps_of


def run_stage(
    stage: Stage,
    llava: Llava,
    folder: Path,
    *,
    seed: int,
    max_bad_share: float,
    metrics: Path,
    console: Console,
) -> Llava:
    """Train a stage to its end and return the model with what it learned.

    Args:
        llava: the model that the stage starts from; it is changed in place.
        folder: of the stage; checkpoints, `stage.json` and the result go there.
        metrics: the run's metrics.jsonl.

    Raises:
        DataError: if the data cannot be used.
        NonFiniteLoss, GradientError: if training fails; the last whole checkpoint stays.
    """
    with progress_bar(console) as progress:
        train, findings = render_sources(stage, stage.data, llava, seed, max_bad_share, progress)
        validation, validation_findings = render_sources(stage, stage.validation, llava, seed, max_bad_share, progress)
    with processes().main_process_first():  # it deletes what is not whole
        checkpoint = last_whole_checkpoint(folder)
    together = str(processes().num_processes)  # they make the batches and their random numbers
    made_from = {"data": train.content_hash(), "base": fingerprint(llava.source), "number of processes": together}
    if checkpoint is not None:
        require_same_origin(folder, made_from)
    prepared = prepare(stage, llava)
    args = training_arguments(stage, folder, seed)
    steps = steps_of(args, len(train))
    modes, rates = modes_of(stage), rates_of(stage, args.learning_rate)
    parts = parts_table(prepared.model, modes, rates)
    show(stage.name, parts, findings, steps, console)
    about = {
        "stage": stage.name,
        "made_from": made_from,
        "parts": [part.row() for part in parts],
        "data": findings.summary(),
        "validation": validation_findings.summary() if stage.validation else None,
    }
    if is_main():
        write_json(folder / "stage.json", about)
    trainer = RowTrainer(
        prepared,
        args,
        train,
        validation or None,
        RowCollator(llava.processor.image_processor, llava.core.config.image_token_id, stage.share_images),
        modes,
        rates,
        [ProgressBar(stage.name, console), MetricsFile(metrics, stage.name)],
    )
    if checkpoint is not None:
        console.print(f"{stage.name}: going on from {checkpoint.name}")
    if checkpoint is not None and checkpoint.name == f"checkpoint-{steps}":
        # transformers would make one step more when the last checkpoint is within an epoch
        load_trained(prepared.model, checkpoint)
        trainer.state.global_step = steps
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step != steps:
        raise RunError(f"{stage.name}: ended after {trainer.state.global_step} of {steps} steps.")
    # with bf16 accelerate wraps the model's forward in autocast; what comes after is to run in the weights' own dtype
    trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
    if is_main():
        keep_trained(prepared, folder, made_from["base"], modes, llava.template(stage.chat_template))
    processes().wait_for_everyone()
    return prepared


def restore_stage(stage: Stage, llava: Llava, folder: Path) -> Llava:
    """Bring back the result of a stage that has ended onto the model that it started from."""
    base = read_json(folder / TRAINED_FOLDER / "lorgnette.json")["base_fingerprint"]
    if base != fingerprint(llava.source):
        raise InputError(
            f"{folder}: was trained on another model than {llava.source} is now. It is left as it is. Next: bring that "
            "model back, or choose another --output."
        )
    prepared = prepare(stage, llava)
    load_trained(prepared.model, folder / TRAINED_FOLDER)
    return prepared


def require_same_origin(folder: Path, made_from: dict[str, str]) -> None:
    """Refuse to go on from a checkpoint with other data or another model than it was made with.

    Raises:
        InputError: naming what has changed.
    """
    before = read_json(folder / "stage.json").get("made_from", {})
    changed = [name for name, value in made_from.items() if before.get(name) != value]
    if changed:
        raise InputError(
            f"{folder}: its checkpoints were made with another {' and '.join(changed)} than there is now. They are "
            "left as they are. Next: bring it back, delete the folder, or choose another --output."
        )


def usable_samples(stage: Stage, llava: Llava) -> Iterator[Rendered]:
    """Yield the samples of a stage that render and whose images open, in their order; others are passed over."""
    renderer = renderer_of(stage, llava)
    for source in stage.data:
        for sample in samples_of(source):
            try:
                if isinstance(sample, Sample):
                    rendered = renderer.render(sample)
                    for image in rendered.images:
                        open_image(image)
                    yield rendered
            except DataError:
                continue  # counted and shown when the stage was trained


def renderer_of(stage: Stage, llava: Llava) -> Renderer:
    """Return the renderer of a stage's samples."""
    return Renderer(
        llava.template(stage.chat_template),
        llava.core.config.image_token_id,
        llava.image_tokens,
        stage.max_text_tokens,
        stage.too_long,
    )


def prepare(stage: Stage, llava: Llava) -> Llava:
    """Freeze, unfreeze and add LoRA as the stage says; trained weights become float32."""
    modes = modes_of(stage)
    if "lora" not in modes.values():
        freeze_all_but(llava.core, modes)
        master_weights(llava.core)
        return llava
    adapted = add_lora(llava.core, modes, stage.lora or {})
    return replace(llava, model=adapted)


def modes_of(stage: Stage) -> dict[str, Mode]:
    """Return part -> mode."""
    return {part: getattr(stage.train, part) for part in PARTS}


def rates_of(stage: Stage, learning_rate: float) -> dict[str, float]:
    """Return part -> learning rate, the stage's own where a part has none."""
    return {part: getattr(stage.learning_rates, part) or learning_rate for part in PARTS}


def training_arguments(stage: Stage, folder: Path, seed: int) -> TrainingArguments:
    """Make transformers' arguments: the recipe's, and those that are Lorgnette's to set.

    Raises:
        RecipeError: if transformers refuses the combination.
    """
    defaults: dict[str, Any] = {
        "report_to": "none",
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        # transformers refuses bf16 on a machine without accelerator unless told that the CPU is meant
        "use_cpu": not torch.accelerator.is_available(),
    }
    try:
        made = TrainingArguments(
            **(defaults | stage.training),
            output_dir=str(folder),
            seed=seed,
            data_seed=seed,
            remove_unused_columns=False,
            label_names=["labels"],
            disable_tqdm=True,
        )
        RowTrainer.get_optimizer_cls_and_kwargs(made)  # an optimizer whose library is missing
    except (ValueError, TypeError, ImportError) as error:
        raise RecipeError(f"stages: {stage.name}: training: transformers refuses these settings: {error}") from error
    if made.n_gpu > 1:
        made._n_gpu = 1  # transformers would cut a batch in pieces for them, which a row cannot be; see `processes`
    wrong = {
        "max_steps: 0 and num_train_epochs: 0 train nothing": made.max_steps == 0 or made.num_train_epochs <= 0,
        "eval_strategy needs `validation:` data": made.eval_strategy != "no" and not stage.validation,
        "dataloader_num_workers must be 0 or more": made.dataloader_num_workers < 0,
    }
    for reason, holds in wrong.items():
        if holds:
            raise RecipeError(f"stages: {stage.name}: training: {reason}.")
    return made


def show(name: str, parts: Sequence[Part], findings: Findings, steps: int, console: Console) -> None:
    """Print what trains and on what, before step 1."""
    table = Table(title=f"stage {name}", title_justify="left")
    for column in ("part", "mode", "parameters", "trainable", "learning rate"):
        table.add_column(column, justify="left" if column in ("part", "mode") else "right")
    for part in parts:
        rate = f"{part.learning_rate:g}" if part.learning_rate else "-"
        table.add_row(part.part, part.mode, f"{part.parameters:,}", f"{part.trainable:,}", rate)
    console.print(table)
    console.print(
        f"{findings.kept:,} of {findings.read:,} samples, {steps:,} steps; "
        f"{findings.supervised / findings.tokens:.1%} of the tokens are supervised"
    )
    if findings.shortened:
        console.print(f"shortened: {findings.shortened:,} samples by {findings.shortened_tokens:,} text tokens")
    counts = {"mended": findings.mended, "left out": findings.left_out, "dropped": findings.dropped}
    for title, counted in counts.items():
        for reason, count in counted.most_common():
            console.print(f"{title}: {count:,} samples: {reason}", markup=False)
    for note in findings.notes:
        console.print(f"note: {note}", markup=False)


def parts_of_run(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the tables of parts of all stages back, each line with its stage."""
    rows: list[dict[str, Any]] = []
    for folder in folders:
        content = read_json(folder / "stage.json")
        rows.extend({"stage": content["stage"], **part} for part in content["parts"])
    return rows


def render_sources(
    stage: Stage, sources: Sequence[Source], llava: Llava, seed: int, max_bad_share: float, progress: Progress
) -> tuple[RenderedDataset, Findings]:
    """Render all samples of a stage's sources, each source repeated by its weight.

    Raises:
        DataError: if a source cannot be read, or too many of its samples cannot be used.
    """
    renderer = renderer_of(stage, llava)
    everything, total = list[tuple[RenderedSamples, list[int]]](), Findings()
    for source in sources:
        shown = progress.track(samples_of(source), total=None, description=f"reading {source.path}")
        encodings = Encodings(cache_file(renderer, source.path, source.format, source.split))
        rendered, findings = render_all(shown, renderer, max_bad_share, encodings)
        if source.limit is not None and findings.read < source.limit:
            findings.notes.append(f"{source.path}: limit {source.limit:,}, but it has only {findings.read:,} samples")
        chosen = weighted(len(rendered), source.weight, seed)
        if not chosen:
            raise DataError(f"{source.path}: weight {source.weight} of {len(rendered)} samples leaves none.")
        everything.append((rendered, chosen))
        total = total + findings
    return RenderedDataset(everything), total


def samples_of(source: Source) -> Iterator[Sample | DataError]:
    """Read a source of the recipe.

    Raises:
        DataError: if there is no such format, or the source cannot be read.
    """
    return read_samples(source.path, source.format, source.split, source.images, source.limit, source.options)
