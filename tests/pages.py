"""What tests of the report share: a strict look at its HTML, hostile text, and a report in one call."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from lorgnette.comparison.compare import compare
from lorgnette.comparison.effects import Compared
from lorgnette.comparison.reading import Result
from lorgnette.comparison.report import write_report
from lorgnette.comparison.training_record import DataFindings, TrainedPart, TrainingRecord

HOSTILE = "<script>alert('$x^$')</script> & \"q\" \x1b[31m 中文"
METRICS: list[dict[str, Any]] = [
    {"stage": stage, "step": step, "loss": 3.0 / step, "learning_rate": 1e-3 / step}
    for stage in ("pretrain", "finetune")
    for step in range(1, 40)
] + [{"stage": "finetune", "step": 40, "eval_loss": 0.2}]


class Page(HTMLParser):
    """Collects tags, attributes and text; fails on a tag that is closed in the wrong place."""

    VOID = ("meta", "img", "br", "wbr", "use", "path")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def training(text: str = "finetune", **changes: Any) -> TrainingRecord:
    """How a small model was made; `text` stands wherever a name is free."""
    record: dict[str, Any] = {
        "name": "A run",
        "metrics": METRICS,
        "parts": (
            TrainedPart(stage=text, part=text, mode=text, parameters=1_900_000, trainable=120_000, learning_rate=0.001),
            TrainedPart(stage=text, part="vision_tower", mode="frozen", parameters=5, trainable=0, learning_rate=None),
        ),
        "data": (
            DataFindings(
                stage=text,
                read=1_020,
                kept=1_000,
                dropped={f"image missing {text}": 17},
                shortened=4,
                tokens=90_000,
                supervised_share=0.125,
                others={"mended": {f"two tags {text}": 3}},
            ),
        ),
        "provenance": {"versions": {"torch": "2.8"}, text: [text], "git": None},
        "recipe": f"seed: 42\n# {text}\n",
    }
    return TrainingRecord(**(record | changes))


def report(folder: Path, pairs: list[tuple[Result, Result]], **changes: Any) -> str:
    """Write a report of before/after pairs and return its HTML."""
    compared: list[Compared] = [compare(before, after) for before, after in pairs]
    arguments: dict[str, Any] = {"title": "A run", "compared": compared, "trainings": [training()]}
    write_report(folder, **(arguments | changes))
    return (folder / "report.html").read_text(encoding="utf-8")
