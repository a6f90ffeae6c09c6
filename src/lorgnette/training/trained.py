"""What a stage leaves when it has ended: its trained parts, and what they belong to."""

from __future__ import annotations

from pathlib import Path

from lorgnette.models.adapters import save_trained
from lorgnette.models.learner import Learner
from lorgnette.models.trainable import Mode
from lorgnette.run import RECORD, library_versions, whole_folder, write_json

TRAINED_FOLDER = "trained"


def is_trained(folder: Path) -> bool:
    """Tell whether a stage has ended."""
    return (folder / TRAINED_FOLDER).is_dir()


def keep_trained(
    trained: Learner, folder: Path, base_fingerprint: str, modes: dict[str, Mode], stage_template: str | None
) -> None:
    """Write the trained parts of a stage into its folder, whole or not at all.

    Args:
        base_fingerprint: of the model that they were trained on.
        stage_template: text of the chat template that the stage was trained with; the model answers with its own.
    """
    with whole_folder(folder / TRAINED_FOLDER) as unfinished:
        in_place = save_trained(trained.module, unfinished)
        write_json(
            unfinished / RECORD,
            {
                "kind": "trained parts",
                "base": trained.source,
                "base_fingerprint": base_fingerprint,
                "modes": modes,
                "in_place": in_place,
                "quantization": trained.quantization,
                "dtype": str(trained.core.get_input_embeddings().weight.dtype).removeprefix("torch."),
                "chat_template": trained.template_text(),
                "stage_chat_template": stage_template,
                "versions": library_versions(),
            },
        )
