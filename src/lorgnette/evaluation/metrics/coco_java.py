"""Run the Java programs that coco-caption uses, from the package pycocoevalcap: only when asked, and if they are there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from lorgnette.errors import DataError, MissingExtra, RunError

METEOR_JAR = "meteor/meteor-1.5.jar"
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
    if package is None or package.origin is None:
        raise MissingExtra("pycocoevalcap", "java")
    java = shutil.which("java")
    if java is None:
        raise DataError(
            "there is no `java` on the path. Next: install Java 8 or newer, or leave the option `java` out."
        )
    file = Path(package.origin).parent / jar
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


def meteor_1_5(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Return METEOR 1.5 of English captions as coco-caption runs it: of the corpus, and of each caption.

    Raises:
        MissingExtra: if pycocoevalcap is not installed.
        DataError: if there is no Java.
        RunError: if the program fails.
    """
    asked = [
        " ||| ".join(("SCORE", *(_clean(text) for text in texts), _clean(candidate)))
        for candidate, texts in zip(candidates, references, strict=True)
    ]
    statistics = run_jar(METEOR_JAR, METEOR, "\n".join(asked) + "\n").splitlines()
    scores = run_jar(METEOR_JAR, METEOR, " ||| ".join(("EVAL", *map(str.strip, statistics))) + "\n").split()
    if len(scores) != len(candidates) + 1:
        raise RunError(f"{METEOR_JAR}: gave {len(scores)} numbers for {len(candidates)} captions.")
    return float(scores[-1]), [float(score) for score in scores[:-1]]


def _clean(text: str) -> str:
    return " ".join(text.replace("|||", " ").split())
