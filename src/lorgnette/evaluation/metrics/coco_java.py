"""Run the Java programs that coco-caption uses, from the package pycocoevalcap; only when asked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lorgnette.errors import DataError, MissingExtra, RunError

METEOR = ("-", "-", "-stdio", "-l", "en", "-norm")


def run_jar(jar: str, program: Sequence[str], text: str) -> str:
    """Give a text to a program of a jar of pycocoevalcap and return what it prints.

    Args:
        program: its main class, if the jar does not name one, and its arguments.

    Raises:
        MissingExtra: if pycocoevalcap is not installed.
        DataError: if there is no Java.
        RunError: if the program fails.
    """
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra("pycocoevalcap", "java")
    java = shutil.which("java")
    if java is None:
        raise DataError("there is no `java` on the path. Next: install Java 8 or newer, or leave the option out.")
    file = Path(next(iter(package.submodule_search_locations))) / jar
    start = ["-jar", str(file)] if program[0].startswith("-") else ["-cp", str(file)]
    done = subprocess.run(
        [java, "-Xmx2G", "-Dfile.encoding=UTF-8", *start, *program],
        input=text.encode("utf-8", "replace"),
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise RunError(f"{file.name}: {done.stderr.decode('utf-8', 'replace')[-300:].strip()}")
    return done.stdout.decode("utf-8", "replace")


def meteor_statistics(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[float]]:
    """Align English captions with their best references by METEOR 1.5; return what `meteor_from_statistics` scores.

    Raises:
        MissingExtra: if pycocoevalcap is not installed.
        DataError: if there is no Java.
        RunError: if the program fails.
    """
    asked = [
        " ||| ".join(("SCORE", *(_clean(text) for text in texts), _clean(candidate)))
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    lines = run_jar("meteor/meteor-1.5.jar", METEOR, "\n".join(asked) + "\n").splitlines()
    if len(lines) != len(candidates):
        raise RunError(f"METEOR gave {len(lines)} lines for {len(candidates)} captions.")
    return [[float(number) for number in line.split()] for line in lines]


def _clean(text: str) -> str:
    return " ".join(text.replace("|||", " ").split())
