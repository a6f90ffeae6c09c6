"""The JSON files of model folders: config.json, adapter_config.json and their kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lorgnette.errors import ModelError


def read_settings(file: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        ModelError: if it is missing, or no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error}). Next: copy the folder anew.") from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{file}: holds a {type(content).__name__}. Allowed: a JSON object. Next: copy the folder anew."
        )
    return content
