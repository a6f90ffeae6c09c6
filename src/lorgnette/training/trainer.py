"""A thin `transformers.Trainer`: rows instead of padded batches, a learning rate a part, checkpoints that are whole.

The loss is summed over supervised tokens and divided by their number in the whole optimizer step, over micro-batches
and processes, so that one batch of eight and eight of one give the same gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from lorgnette.data.dataset import RenderedDataset, RowCollator, SharedImageSampler
from lorgnette.data.pairs import PairCollator
from lorgnette.data.shares import ShareDataset, ShareSampler
from lorgnette.errors import NonFiniteLoss, RecipeError
from lorgnette.models.adapters import load_trained, save_trained, spare_casts
from lorgnette.models.learner import Learner
from lorgnette.models.trainable import Mode, parameter_groups, require_gradients
from lorgnette.run import seal_checkpoint


class RowTrainer(Trainer):  # type: ignore[misc]
    """Train a LLaVA on rows, or a text-to-text model on padded pairs.

    Args:
        learner: the model, its trained parameters set by `models.trainable` or `models.adapters`.
        modes: part -> frozen, lora or full.
        rates: part -> learning rate.
        collator: makes batches of rendered samples.
        share_images: bring samples about the same images together.
    """

    def __init__(
        self,
        learner: Learner,
        args: TrainingArguments,
        train: RenderedDataset,
        validation: RenderedDataset | None,
        collator: RowCollator | PairCollator,
        modes: Mapping[str, Mode],
        rates: Mapping[str, float],
        callbacks: list[TrainerCallback],
        *,
        share_images: bool = True,
    ) -> None:
        self.learner = learner
        self.modes = modes
        self.rates = rates
        self.share_images = share_images
        self.optimizer: torch.optim.Optimizer | None
        self.control: Any
        super().__init__(
            model=learner.module,
            args=args,
            train_dataset=train,
            eval_dataset=validation,
            data_collator=collator,
            callbacks=[*callbacks, FirstStepCheck(modes)],
        )
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the loss of one row, divided by the supervised tokens of the whole step.

        Raises:
            NonFiniteLoss: naming the samples of the row.
        """
        row = inputs["row"]
        self.learner.hold_still(self.modes)
        with self.accelerator.autocast(), spare_casts(model):
            logits = self.learner.logits(row, model)
        total = cross_entropy(logits.float(), row.labels, reduction="sum")
        if not torch.isfinite(total):
            raise NonFiniteLoss(
                f"step {self.state.global_step + 1}: the loss is {total.item()}. Samples: {', '.join(row.ids[:20])}. "
                "The last whole checkpoint is kept. Next: look at these samples; lower the learning rate."
            )
        items = row.labels.numel() if num_items_in_batch is None else num_items_in_batch
        # processes average their gradients, which the sum over all of them must not be divided by
        processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return total / items * processes

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer that the recipe names, with a learning rate a part."""
        if self.optimizer is None:
            chosen = self.model if model is None else model
            decayed = frozenset(self.get_decay_parameter_names(chosen))
            groups = parameter_groups(chosen, self.rates, self.args.weight_decay, decayed)
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, chosen)
            made: torch.optim.Optimizer = optimizer_class(groups, **settings)
            self.optimizer = made
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return micro-batches in the order of `SharedImageSampler`, whole epochs of them."""
        return self._loader(self.train_dataset, self.args.train_batch_size, self.args.seed)

    def _loader(self, dataset: RenderedDataset, batch_size: int, seed: int | None) -> DataLoader[Any]:
        sampler: SharedImageSampler | SequentialSampler = SequentialSampler(dataset)
        if seed is not None:
            sampler = SharedImageSampler(dataset.images(), seed, share_images=self.share_images)
        drop_last = seed is not None and self.args.dataloader_drop_last
        state = self.accelerator.state
        workers = self.args.dataloader_num_workers
        loader: DataLoader[Any] = DataLoader(
            ShareDataset(dataset, len(dataset)),
            batch_sampler=ShareSampler(sampler, batch_size, drop_last, state.process_index, state.num_processes),
            collate_fn=self.data_collator,
            num_workers=workers,
            persistent_workers=workers > 0 and self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers else None,
        )
        # the batches are this process's own already; accelerate would fill up the last ones with samples it gave before
        return prepare_data_loader(loader, state.device, 1, 0, put_on_device=True)  # type: ignore[no-any-return]

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the validation loss: summed over all supervised tokens, divided by their number."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64)  # loss, tokens
        loader = self._loader(eval_dataset or self.eval_dataset, self.args.eval_batch_size, None)
        for batch in loader:
            row = batch["row"].to(self.args.device)
            with self.accelerator.autocast():
                logits = self.learner.logits(row, self.model)
            total += torch.tensor(
                [float(cross_entropy(logits.float(), row.labels, reduction="sum")), row.labels.numel()]
            )
        loss, tokens = self.accelerator.reduce(total.to(self.args.device)).tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / max(tokens, 1)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: transformers' estimate counts padded batches."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            save_trained(self.model, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model if model is None else model, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write a checkpoint, seal it, and only then delete older ones."""
        keep = self.args.save_total_limit
        self.args.save_total_limit = None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = keep
        self.accelerator.wait_for_everyone()  # each process writes the state of its random numbers
        if self.args.should_save:
            seal_checkpoint(Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            rotate_checkpoints(
                output_dir=self.args.output_dir,
                save_total_limit=keep,
                best_model_checkpoint=self.state.best_model_checkpoint,
            )


class FirstStepCheck(TrainerCallback):  # type: ignore[misc]
    """Check after the first backward pass of a start that every trained part got a gradient."""

    def __init__(self, modes: Mapping[str, Mode]) -> None:
        self.modes = modes
        self.done = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Raise GradientError if a part learns nothing."""
        if not self.done:
            require_gradients(model, self.modes)
            self.done = True


def steps_of(args: TrainingArguments, samples: int) -> int:
    """Return how many optimizer steps a stage takes.

    Raises:
        RecipeError: if the samples do not fill one batch and the last one is to be dropped.
    """
    batches = samples / (args.train_batch_size * args.world_size)
    batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    if batches == 0:
        raise RecipeError(
            f"training: {samples} samples do not fill a batch of {args.train_batch_size}, and dataloader_drop_last "
            "drops it. Next: take a smaller per_device_train_batch_size."
        )
    if args.max_steps > 0:
        return int(args.max_steps)
    steps = math.ceil(batches / args.gradient_accumulation_steps) * float(args.num_train_epochs)
    whole: int = math.ceil(steps)
    return whole
