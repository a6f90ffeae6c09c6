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
    trained: Learner, folder: Path, base_fingerprint: str, modes: dict[str, Mode], template: str | None
) -> None:
    """Write the trained parts of a stage into its folder, whole or not at all.

    Args:
        base_fingerprint: of the model that they were trained on.
        template: text of the chat template that the stage was trained with.
    """
    with whole_folder(folder / TRAINED_FOLDER) as unfinished:
        save_trained(trained.module, unfinished)
        write_json(
            unfinished / RECORD,
            {
                "kind": "trained parts",
                "base": trained.source,
                "base_fingerprint": base_fingerprint,
                "modes": modes,
                "quantization": trained.quantization,
                "chat_template": template,
                "versions": library_versions(),
            },
        )
