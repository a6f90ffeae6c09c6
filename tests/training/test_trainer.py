"""Gradients under accumulation, parts and rates, checks before and after step 1."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

import wild_images as wild
from lorgnette.data.dataset import RowCollator
from lorgnette.errors import DataError, GradientError, NonFiniteLoss, RecipeError
from lorgnette.models.assembly import assemble
from lorgnette.models.loading import Llava
from lorgnette.recipe.sections import Stage
from lorgnette.run import read_json, read_json_lines
from lorgnette.training import stages
from lorgnette.training.samples import render_sources, render_stage
from lorgnette.training.stages import modes_of, prepare, rates_of, run_stage, training_arguments
from lorgnette.training.trainer import RowTrainer

StageOf = Callable[..., Stage]


def train(stage: Stage, llava: Llava, folder: Path, **more) -> tuple[Llava, str]:
    out = io.StringIO()
    trained = run_stage(
        stage,
        llava,
        render_stage(stage, llava, 7, more.pop("max_bad_share", 0.0), Progress(disable=True)),
        folder / stage.name,
        seed=7,
        metrics=folder / "metrics.jsonl",
        console=Console(file=out, width=120),
    )
    return trained, out.getvalue()


def trainer_of(stage: Stage, llava: Llava, folder: Path, callbacks=()) -> RowTrainer:
    rendered, _ = render_sources(stage, stage.data, llava, 7, 0.0, Progress(disable=True))
    args = training_arguments(stage, folder, 7)
    prepared = prepare(stage, llava)
    collator = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id, stage.share_images)
    return RowTrainer(
        prepared,
        args,
        rendered,
        None,
        collator,
        modes_of(stage, prepared),
        rates_of(stage, 1e-2),
        list(callbacks),
    )


class Gradients(stages.ProgressBar):
    """Keep the gradients of the first optimizer step."""

    def __init__(self) -> None:
        super().__init__("", Console(file=io.StringIO()))
        self.kept: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_) -> None:
        if not self.kept:
            self.kept = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_one_batch_of_eight_equals_eight_of_one(
    parts: Callable[[str, str], tuple[str, str]], stage_of: StageOf, tmp_path: Path
) -> None:
    # answers have one to three words: averaging means of micro-batches would weigh them differently
    found = []
    for batch, accumulation in ((8, 1), (1, 8), (2, 4)):
        llava = assemble(*parts("clip", "llama"), seed=3)
        torch.manual_seed(0)  # of LoRA's matrices
        stage = stage_of(
            {
                "per_device_train_batch_size": batch,
                "gradient_accumulation_steps": accumulation,
                "max_steps": 1,
                "max_grad_norm": 0,
            },
            lora={"r": 4, "lora_dropout": 0.0, "init_lora_weights": False},
        )
        gradients = Gradients()
        trainer = trainer_of(stage, llava, tmp_path / str(batch), [gradients])
        loss = trainer.train().training_loss
        found.append((loss, gradients.kept))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        assert gradients.keys() == found[0][1].keys()
        for name, gradient in found[0][1].items():
            assert (gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, name


def test_lora_stays_out_of_the_tower_and_the_projector_is_trained_beside_it(llava: Llava, stage_of: StageOf) -> None:
    adapted = prepare(stage_of(), llava).model
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(
        ("lora_" in name and ".language_model." in name) or ".multi_modal_projector." in name for name in trained
    )
    layers = llava.core.config.text_config.num_hidden_layers
    assert sum("lora_A" in name for name in trained) == 7 * layers  # q k v o gate up down
    assert any("modules_to_save" in name for name in trained)


def test_lora_on_the_tower_when_asked(llava: Llava, stage_of: StageOf) -> None:
    stage = stage_of(
        train={"vision_tower": "lora", "language_model": "lora"}, lora={"target_modules": ["q_proj"]}, learning_rates={}
    )
    names = [name for name, p in prepare(stage, llava).model.named_parameters() if p.requires_grad]
    assert {"vision_tower" in name for name in names} == {True, False}
    assert all(".q_proj." in name for name in names)


def test_each_part_has_its_learning_rate(llava: Llava, stage_of: StageOf, tmp_path: Path) -> None:
    trainer = trainer_of(stage_of(), llava, tmp_path)
    groups = trainer.create_optimizer().param_groups
    assert {(group["part"], group["lr"]) for group in groups} == {("projector", 2e-3), ("language_model", 1e-2)}
    trained = {id(p) for p in trainer.model.parameters() if p.requires_grad}
    assert {id(p) for group in groups for p in group["params"]} == trained


def test_trained_weights_are_float32_masters(parts: Callable[[str, str], tuple[str, str]], stage_of: StageOf) -> None:
    llava = assemble(*parts("clip", "llama"), dtype=torch.bfloat16)
    adapted = prepare(stage_of(), llava).model
    kinds = (
        {p.dtype for p in adapted.parameters() if p.requires_grad},
        {p.dtype for p in adapted.parameters() if not p.requires_grad},
    )
    assert kinds == ({torch.float32}, {torch.bfloat16})


def test_bf16_training_on_the_cpu_learns(
    parts: Callable[[str, str], tuple[str, str]], stage_of: StageOf, tmp_path: Path
) -> None:
    llava = assemble(*parts("clip", "llama"), dtype=torch.bfloat16)
    train(stage_of({"bf16": True, "max_steps": 12}), llava, tmp_path)
    losses = [row["loss"] for row in read_json_lines(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


def test_the_table_of_parts_is_shown_before_step_1_and_kept(llava: Llava, stage_of: StageOf, tmp_path: Path) -> None:
    _, shown = train(stage_of(), llava, tmp_path)
    assert "vision_tower" in shown
    assert "16 of 16 samples, 4 steps" in shown
    assert "of the tokens are supervised" in shown
    kept = read_json(tmp_path / "finetune" / "stage.json")
    trainable = {part["part"]: part["trainable"] for part in kept["parts"]}
    assert trainable["vision_tower"] == 0
    assert trainable["projector"] == 24 * 32 + 32 + 32 * 32 + 32
    assert 0 < kept["data"]["supervised_share"] < 0.5


def test_a_part_without_gradient_is_an_error(llava: Llava, stage_of: StageOf, tmp_path: Path, data_file: Path) -> None:
    rows = json.loads(data_file.read_text())
    for row in rows:
        del row["image"]
        row["conversations"][0]["value"] = "what color?"
    data_file.write_text(json.dumps(rows))
    with pytest.raises(GradientError, match="projector"):
        train(stage_of(), llava, tmp_path)


def test_a_loss_that_is_not_finite_names_the_samples(llava: Llava, stage_of: StageOf, tmp_path: Path) -> None:
    with torch.no_grad():
        llava.core.model.multi_modal_projector.linear_1.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLoss, match=r"step 1: the loss is nan. Samples: row-"):
        train(stage_of(), llava, tmp_path)


def test_a_stage_that_fails_gives_the_cursor_back(llava: Llava, stage_of: StageOf, tmp_path: Path) -> None:
    with torch.no_grad():
        llava.core.model.multi_modal_projector.linear_1.weight.fill_(float("nan"))
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True)
    data = render_stage(stage_of(), llava, 7, 0.0, Progress(disable=True))
    about = {"seed": 7, "metrics": tmp_path / "metrics.jsonl", "console": console}
    with pytest.raises(NonFiniteLoss):
        run_stage(stage_of(), llava, data, tmp_path / "finetune", **about)
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert out.getvalue().rfind(shown) > out.getvalue().rfind(hidden) > 0


def test_validation_loss_is_the_mean_over_tokens(
    llava: Llava, stage_of: StageOf, tmp_path: Path, data_file: Path
) -> None:
    source = {"path": str(data_file), "format": "llava", "images": "/", "limit": 7}
    stage = stage_of(
        {"eval_strategy": "steps", "eval_steps": 4, "learning_rate": 1e-12, "per_device_eval_batch_size": 3},
        validation=[source],
        learning_rates={},
    )
    trained, _ = train(stage, llava, tmp_path)
    logged = [row["eval_loss"] for row in read_json_lines(tmp_path / "metrics.jsonl") if "eval_loss" in row]
    rendered, _ = render_sources(stage, stage.validation, llava, 7, 0.0, Progress(disable=True))
    from lorgnette.models.forward import row_logits

    row = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)(rendered)["row"]
    trained.model.eval()
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(
            row_logits(trained.model, trained.core, row, trained.scale), row.labels
        )
    assert logged == [pytest.approx(expected.item(), rel=1e-5)]


def test_too_many_bad_rows_stop_the_run_and_few_are_counted(
    llava: Llava, stage_of: StageOf, tmp_path: Path, data_file: Path
) -> None:
    rows = json.loads(data_file.read_text())
    rows[3]["image"] = "/nowhere/x.png"
    rows[5]["conversations"] = rows[5]["conversations"][:1]
    data_file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"2 of 16 samples cannot be used") as error:
        train(stage_of(), llava, tmp_path)
    assert "row 3 (id row-3): /nowhere/x.png: there is no such image" in str(error.value)
    assert not (tmp_path / "finetune").exists()
    _, shown = train(stage_of(), llava, tmp_path, max_bad_share=0.2)
    assert "14 of 16 samples" in shown
    assert shown.count("dropped: 1 samples") == 2


def test_what_a_reader_mends_and_leaves_out_is_shown_and_kept(
    llava: Llava, stage_of: StageOf, tmp_path: Path, data_file: Path, pictures: list[str]
) -> None:
    rows = json.loads(data_file.read_text())
    for row in rows[:3]:
        row["conversations"][0]["value"] = "what is this?"
    data_file.write_text(json.dumps(rows))
    source = {"path": str(data_file), "format": "llava", "images": "/", "limit": 50}
    stage = stage_of({"max_steps": 1}, data=[source | {"options": {"leave_out": [pictures[3]]}}])
    _, shown = train(stage, llava, tmp_path)
    assert "12 of 12 samples" in shown
    assert "mended: 3 samples: image tag inserted" in shown
    assert "left out: 4 samples: left out: " in shown
    assert "limit 50, but it has only 12 samples" in "".join(shown.split("\n")).replace("  ", " ")
    data = read_json(tmp_path / "finetune" / "stage.json")["data"]
    assert (data["mended"], data["left_out"]) == ({"image tag inserted": 3}, {f"left out: {pictures[3]}": 4})
    assert [note for note in data["notes"] if "limit 50" in note]


def test_an_image_that_no_check_has_seen_is_opened_before_the_first_step(
    llava: Llava, stage_of: StageOf, tmp_path: Path, data_file: Path
) -> None:
    wild.truncated_jpeg(tmp_path / "cut.jpg")
    rows = json.loads(data_file.read_text())
    rows[5]["image"] = str(tmp_path / "cut.jpg")
    data_file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"row 5 \(id row-5\): .*cut\.jpg"):
        train(stage_of({"max_steps": 1}), llava, tmp_path)
    assert not (tmp_path / "finetune").exists()
    _, shown = train(stage_of({"max_steps": 1}), llava, tmp_path, max_bad_share=0.1)
    assert "15 of 16 samples" in shown
    assert read_json(tmp_path / "finetune" / "stage.json")["data"]["dropped"] == {"image truncated": 1}


def test_settings_that_transformers_refuses_are_recipe_errors(llava: Llava, stage_of: StageOf, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="finetune: training"):
        train(
            stage_of(
                {
                    "eval_strategy": "steps",
                    "eval_steps": 3,
                    "save_strategy": "steps",
                    "save_steps": 2,
                    "load_best_model_at_end": True,
                }
            ),
            llava,
            tmp_path,
        )


def test_fewer_steps_than_none_are_a_mistake(stage_of: StageOf, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="max_steps must be more than 0, or -1"):
        training_arguments(stage_of({"max_steps": -5}), tmp_path, 7)


def test_a_record_of_losses_that_is_none_is_named(stage_of: StageOf, llava: Llava, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": "finetune", "step": 1}\n{"step": "two"}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: needs a stage and a step"):
        train(stage_of(), llava, tmp_path)
