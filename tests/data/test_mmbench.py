"""MMBench: Parquet and TSV, pictures of other rows, missing cells in all their spellings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.readers import read_samples
from lorgnette.data.readers.mmbench import MMBenchQuestion, mmbench_questions, question_with_options
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.errors import DataError, RowError
from small_sets import encoded, mmbench_row, official_row, picture, struct, write_parquet, write_tsv


def test_the_parquet_of_mmbench_ru(tmp_path: Path) -> None:
    rows = [
        mmbench_row(241, "A", ["кошка", "собака", "лошадь", "корова"], struct(1), hint="Это загон."),
        mmbench_row(252, "B", ["кошка", "собака", "nan", None], struct(2), hint=None),
        mmbench_row(1000241, "D", ["собака", "лошадь", "корова", "кошка"], struct(1)),
    ]
    file = write_parquet(tmp_path / "mmbench_ru_dev.parquet", rows)
    first, second, third = mmbench_questions(str(tmp_path), "dev", None)
    assert isinstance(first, MMBenchQuestion)
    assert first == MMBenchQuestion(
        id="241",
        index=241,
        image=first.image,
        hint="Это загон.",
        question="Кто на картинке?",
        options={"A": "кошка", "B": "собака", "C": "лошадь", "D": "корова"},
        answer="A",
        category="object_localization",
        l2_category="finegrained_perception",
        source="reasoning",
        split="dev",
        origin=Origin(file, 0),
    )
    assert Path(first.image).read_bytes() == picture(1)
    assert isinstance(second, MMBenchQuestion)
    assert (second.hint, second.options) == ("", {"A": "кошка", "B": "собака"})
    assert isinstance(third, MMBenchQuestion)
    assert (third.index, third.image) == (1000241, first.image)
    assert question_with_options(second) == "Кто на картинке? There are several options:\nA. кошка\nB. собака"
    assert question_with_options(first).startswith("Это загон. Кто на картинке? There are several options:\nA. кошка\n")


def test_a_sample_is_answered_by_a_letter(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "x.parquet", [mmbench_row(1, "B", ["да", "нет", None, None], struct(1))])
    (sample,) = read_samples(file, "mmbench")
    assert isinstance(sample, Sample)
    asked = "<image>\nКто на картинке? There are several options:\nA. да\nB. нет"
    assert sample.turns == (Turn("user", asked), Turn("assistant", "B"))
    assert sample.origin == Origin(file, 0)


def test_the_official_tsv_and_pictures_of_other_rows(tmp_path: Path) -> None:
    rows = [
        official_row(1000007, "7", question='He said "what\'s\tthis?"\nAnd then?'),
        official_row(7, encoded(7)),
        official_row(8, encoded(8), hint="5' 3\" tall", D="nan"),
        official_row(2000007, "7"),
    ]
    file = write_tsv(tmp_path / "mmbench_dev_en_20231003.tsv", rows)
    found = list(mmbench_questions(file, None, None))
    assert [row.index for row in found if isinstance(row, MMBenchQuestion)] == [1000007, 7, 8, 2000007]
    assert [Path(row.image).read_bytes() for row in found if isinstance(row, MMBenchQuestion)] == [
        picture(7),
        picture(7),
        picture(8),
        picture(7),
    ]
    first, _, third, _ = found
    assert isinstance(first, MMBenchQuestion)
    assert first.question == 'He said "what\'s\tthis?"\nAnd then?'
    assert first.l2_category == "finegrained_perception"
    assert (first.options, first.answer) == ({"A": "x", "B": "y", "C": "z", "D": "w"}, "D")
    assert isinstance(third, MMBenchQuestion)
    assert (third.hint, list(third.options)) == ("5' 3\" tall", ["A", "B", "C"])


def test_a_split_of_a_file_is_its_column(tmp_path: Path) -> None:
    rows = [
        official_row(1, encoded(1)),
        official_row(2, encoded(2), split="test"),
        official_row(1000002, "1", split="test"),
    ]
    file = write_tsv(tmp_path / "x.tsv", rows)
    found = list(mmbench_questions(file, "test", None))
    assert [row.id for row in found if isinstance(row, MMBenchQuestion)] == ["2", "1000002"]
    with pytest.raises(DataError, match=r"no row is of split 'tset'.*has: dev, test.*Did you mean 'test'"):
        list(mmbench_questions(file, "tset", None))


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"index": "x"}, "no index"),
        ({"index": "8"}, "index twice"),
        ({"image": "9"}, "image missing"),
        ({"image": "1000008"}, "image missing"),
        ({"image": "photo.jpg"}, "no image"),
        ({"image": ""}, "no image"),
        ({"image": "*" * 100}, "image cell"),
        ({"answer": "E"}, "answer is no option"),
        ({"answer": ""}, "no answer"),
        ({"question": "nan"}, "no question"),
        ({"A": "<image>"}, "image tag in the text"),
    ],
)
def test_bad_rows_are_errors_with_their_row(tmp_path: Path, changed: Mapping[str, Any], kind: str) -> None:
    rows = [official_row(8, encoded(8)), official_row(1000008, "8"), official_row(2000008, "8") | changed]
    file = write_tsv(tmp_path / "x.tsv", rows)
    *good, bad = mmbench_questions(file, None, None)
    assert [type(row) for row in good] == [MMBenchQuestion, MMBenchQuestion]
    assert isinstance(bad, RowError)
    assert bad.kind == kind
    assert bad.where.startswith(f"{file}, row 2")


def test_a_file_without_the_columns_is_an_error(tmp_path: Path) -> None:
    file = write_tsv(tmp_path / "x.tsv", [{"index": "1", "qestion": "x", "answer": "A", "image": "y"}])
    with pytest.raises(DataError, match=r"x\.tsv: there is no column question.*Did you mean 'qestion'"):
        list(mmbench_questions(file, None, None))
