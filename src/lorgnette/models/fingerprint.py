"""What tells two models apart: a hash over the files that decide their answers."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from lorgnette.models.soft_prompt import PROMPT_FOLDER
from lorgnette.run import RECORD


def fingerprint(source: str | Path) -> str:
    """Hash what decides a local model's answers: its configuration, tokenizer and weights. Hub names keep theirs.

    Returns:
        "sha256:..." over the names and contents of the folder's files (or of the one file), or "hub:NAME@COMMIT", the
        commit that was downloaded ("hub:NAME" before that).
    """
    path = Path(source)
    if not path.exists():
        try:
            config = try_to_load_from_cache(str(source), "config.json")
        except ValueError:  # a path that is not there, no name
            config = None
        return f"hub:{source}@{Path(config).parent.name}" if isinstance(config, str) else f"hub:{source}"
    files = (
        [path]
        if path.is_file()
        else [
            file
            for file in (*sorted(path.iterdir()), *sorted((path / PROMPT_FOLDER).glob("*")))
            if file.suffix in {".json", ".safetensors", ".jinja", ".model"} and file.name != RECORD
        ]
    )
    # 14 GB take a minute to read; the state that the system keeps of each file tells whether they must be read again
    return _hash_of(
        path.parent if path.is_file() else path,
        tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files),
    )


@lru_cache(maxsize=32)
def _hash_of(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, size, _ in files:
        digest.update(json.dumps([str(file.relative_to(folder)), size]).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
