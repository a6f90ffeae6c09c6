"""What becomes of one row is decided and counted in one place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lorgnette.data.findings import EXAMPLES, Judged
from lorgnette.data.rules import BadRow, Usable, judge, judge_document, unencoded
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError, LeftOut, RowError
from small import conversation

OUT = LeftOut("inactive", "x.json, row 1", "says so.")


def sample(id: str = "a", mended: tuple[str, ...] = ()) -> Sample:
    return replace(conversation(id, ["p.png"], "is there a cat?", "no"), mended=mended)


WHERE = sample().where


def missing(path: str) -> None:
    raise RowError("image missing", path, "there is no such image.")


def there(path: str) -> None:
    """Know every image."""


def test_a_row_is_used_with_what_it_was_encoded_to() -> None:
    assert judge(sample(), there, lambda row: len(row.turns)) == Usable(sample(), 2)
    assert judge(sample(), there, unencoded) == Usable(sample(), None)
    assert judge(OUT, there, unencoded) is OUT


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (RowError("cell", "x.json, row 2", "no image."), BadRow("cell", "x.json, row 2", "no image.")),
        (DataError("x.json, row 3: broken."), BadRow("broken.", "x.json, row 3", "broken.")),
        (DataError("broken"), BadRow("broken", "broken", "")),
        (
            replace(sample(), images=()),
            BadRow("tags and images differ", sample().where, "1 <image> tags but 0 images."),
        ),
    ],
)
def test_a_row_that_cannot_be_used_has_a_kind_and_says_what_its_error_says(row: Sample | DataError, expected: BadRow):
    verdict = judge(row, there, unencoded)
    assert verdict == expected
    assert str(verdict) == (str(row) if isinstance(row, DataError) else f"{row.where}: {expected.reason}")


def test_images_and_encoding_refuse_a_row_of_training_and_only_images_a_document() -> None:
    def refuse(row: Sample) -> None:
        raise RowError("too long", row.where, "900 tokens.")

    found = BadRow("image missing", WHERE, "p.png: there is no such image.")
    assert judge(sample(), missing, refuse) == found
    assert judge(sample(), there, refuse) == BadRow("too long", WHERE, "900 tokens.")
    assert judge_document(sample(), missing) == BadRow("image missing", "p.png", "there is no such image.")
    no_answer = replace(sample(), turns=sample().turns[:1])
    assert judge_document(no_answer, there) == Usable(no_answer, None)
    assert judge_document(OUT, there) is OUT


def test_rows_are_counted_once_by_kind_and_by_what_is_done() -> None:
    judged = Judged()
    for number in range(EXAMPLES + 2):
        judged.count(Usable(sample(str(number), ("tag inserted", "tag inserted", "turn dropped")), None))
    judged.count(BadRow("inactive", "x.json, row 0", "broken."))
    judged.count(OUT)
    assert (judged.read, judged.kept) == (EXAMPLES + 3, EXAMPLES + 2)
    assert judged.counts("mend") == {"tag inserted": EXAMPLES + 2, "turn dropped": EXAMPLES + 2}
    assert judged.counts("drop") == judged.counts("leave out") == {"inactive": 1}
    places = [example.place for example in judged.findings["tag inserted", "mend"].examples]
    assert places == [sample(str(number)).where for number in range(EXAMPLES)]
    both = judged + judged
    assert both.counts("mend")["tag inserted"] == 2 * (EXAMPLES + 2)
    assert len(both.findings["inactive", "drop"].examples) == 2
    assert judged.counts("drop") == {"inactive": 1}  # adding changes neither
