"""The example of docs/own-task.md works as it stands there, and so does what the page says beside it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from PIL import Image

from lorgnette.errors import DataError, RowError
from lorgnette.evaluation.asking import fill
from lorgnette.evaluation.scoring import score_answers
from lorgnette.evaluation.tasks import find_task, options_of, read_documents
from lorgnette.evaluation.tasks.task import Document, RowTask, Score, Scored, SetTask

PAGE = Path(__file__).parents[2] / "docs" / "own-task.md"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (code,) = re.findall(r"```python\n# my_tasks.py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) <= 30
    (tmp_path / "my_tasks.py").write_text(code, encoding="utf-8")
    (tmp_path / "birds" / "images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "birds" / "images" / "1.png")
    rows = [{"id": f"{n}", "image": "1.png", "question": "Which?", "answer": "owl", "type": "night"} for n in range(3)]
    (tmp_path / "birds" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_tasks", None)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    return "my_tasks:Birds"


def test_the_page_is_a_task(module: str) -> None:
    task = find_task(module)
    documents, unusable = read_documents(task, None, limit=2)
    assert (len(documents), unusable) == (2, {})
    assert fill(task.prompt, documents[0]) == "Which?\nAnswer with one word."
    scored = score_answers(task, documents, ["Owl.", "hawk"])
    assert [row.scores for row in scored.rows] == [{"exact_match": 1.0}, {"exact_match": 0.0}]
    with pytest.raises(DataError, match=r"no option 'path'. Allowed: none"):
        find_task(module, {"path": "elsewhere"})


@dataclass(frozen=True)
class Several:
    """A dataclass whose scores depend on each other."""

    path: str = "here"
    strict: bool = False
    name = "several"
    metric = "share"
    split = "test"
    prompt = "{hint} {question}"
    max_new_tokens = 4

    def documents(self, split: str):
        yield RowError("no answer", "row 0", "it is empty.")
        for number in range(120):
            yield Document(str(number), (), "Who?", ("a", "b"), groups={"half": str(number % 2)}, fields={"hint": ""})

    def score_all(self, documents, answers):
        longest = max(map(len, answers)) or 1
        rows = [Score({"share": len(answer) / longest, "length": len(answer)}, read=True) for answer in answers]
        return Scored(rows, notes={"share": "of the longest"}, counts={"seen": len(rows)}, warnings=["careful"])


def test_options_sets_and_rows_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    task = find_task(f"{__name__}:Several", {"strict": "true", "path": "there"})
    assert options_of(task) == {"path": "there", "strict": True}
    assert isinstance(task, SetTask)
    assert not isinstance(task, RowTask)
    documents, unusable = read_documents(task, None)
    assert (len(documents), unusable) == (120, {"no answer": 1})
    assert fill(task.prompt, documents[0]) == "Who?"
    scored = score_answers(task, documents[:2], ["xx", "xxxx"])
    assert [row.scores["share"] for row in scored.rows] == [0.5, 1.0]
    with pytest.raises(DataError, match=r"option strict: .* Got: 'perhaps'"):
        find_task(f"{__name__}:Several", {"strict": "perhaps"})
    with pytest.raises(DataError, match=r"Did you mean 'strict'"):
        find_task(f"{__name__}:Several", {"strikt": True})
    with pytest.raises(DataError, match=r"cannot be made \(TypeError: .* without arguments"):
        find_task(f"{__name__}:Document")
    with pytest.raises(DataError, match=r"has no 'Severe'. It has: .*Did you mean 'Several'"):
        find_task(f"{__name__}:Severe")
    monkeypatch.setattr(Several, "score_all", lambda *_: Scored([]))
    with pytest.raises(DataError, match="Allowed: a Scored with a row an answer"):
        score_answers(task, documents, [""] * 120)
    monkeypatch.setattr(Several, "score_all", lambda *_: Scored([Score({"share": 1.0}, {"mine": [1.0]})]))
    with pytest.raises(DataError, match=r"gave parts of mine. Allowed: bleu_1"):
        score_answers(task, documents[:1], [""])
    monkeypatch.setattr(Several, "score_all", lambda *_: Scored([Score({"share": 1.0})], highest={"share": 0}))
    with pytest.raises(DataError, match=r"gave 0 as highest share. Allowed: above 0"):
        score_answers(task, documents[:1], [""])
    monkeypatch.setattr(Several, "score_all", lambda *_: Scored([Score({"share": 1.0}, read="maybe")]))
    with pytest.raises(DataError, match=r"gave read 'maybe'. Allowed: true, false"):
        score_answers(task, documents[:1], [""])


def test_too_many_rows_that_cannot_be_used_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Document("1", (), "Who?", "a"), RowError("no answer", "row 1", "it is empty.")]
    monkeypatch.setattr(Several, "documents", lambda *_: rows)
    with pytest.raises(DataError, match=r"1 of 2 rows cannot be used, the first: row 1: it is empty"):
        read_documents(Several(), None)


def test_a_limit_reads_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bad row among the first is not yet too many: rows are read until its share is known to be small."""

    def endless(bad: int):
        for number in count():
            yield (
                RowError("no answer", f"row {number}", "it is empty.")
                if number == bad
                else Document(str(number), (), "Who?", "a")
            )

    monkeypatch.setattr(Several, "documents", lambda *_: endless(-1))
    assert [d.id for d in read_documents(Several(), None, 3)[0]] == ["0", "1", "2"]
    monkeypatch.setattr(Several, "documents", lambda *_: endless(1))
    documents, unusable = read_documents(Several(), None, 3)
    assert ([d.id for d in documents], unusable) == (["0", "2", "3"], {"no answer": 1})


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("{hint}\n{question}", "What is {hint}?"),
        ("{question} {A}!", "What is {hint}? a{B}!"),
        ('{"json": {question}}', '{"json": What is {hint}?}'),
        ("no field", "no field"),
    ],
)
def test_a_prompt_is_filled_once(prompt: str, filled: str) -> None:
    document = Document("1", (), "What is {hint}?", "x", fields={"hint": "", "A": "a{B}"})
    assert fill(prompt, document) == filled


def test_a_prompt_with_an_unknown_field_or_an_image_tag_is_refused() -> None:
    document = Document("1", (), "What?", "x", fields={"hint": ""})
    with pytest.raises(DataError, match=r"names \{hnit\}. Allowed: \{question\}, \{hint\}. Did you mean 'hint'"):
        fill("{hnit}", document)
    with pytest.raises(DataError, match="<image>"):
        fill("<image>\n{question}", document)
