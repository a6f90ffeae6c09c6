"""CIDEr, BLEU, ROUGE-L and METEOR equal coco-caption's, on vectors of its own and on random captions."""

from __future__ import annotations

import random
import shutil
from importlib.util import find_spec

import numpy as np
import pytest

from lorgnette.evaluation.metrics.aggregate import AGGREGATES
from lorgnette.evaluation.metrics.cider import cider
from lorgnette.evaluation.metrics.coco_captions import (
    bleu_from_statistics,
    bleu_statistics,
    meteor_from_statistics,
    rouge_l,
)
from lorgnette.evaluation.metrics.coco_java import meteor_statistics
from lorgnette.evaluation.metrics.ptb import ptb_java, ptb_like

EXACT = {"rel": 0, "abs": 1e-9}
needs_java = pytest.mark.skipif(
    shutil.which("java") is None or find_spec("pycocoevalcap") is None, reason="needs Java and pycocoevalcap"
)


@pytest.fixture
def captions(vectors) -> tuple[list[str], list[list[str]]]:
    """The vectors' three captions and five references each, tokenised."""
    given = vectors("captions")
    return [given["res_tok"][key][0] for key in "123"], [given["gts_tok"][key] for key in "123"]


def test_cider_d_equals_coco_caption(vectors, captions) -> None:
    given = vectors("captions")
    scores = cider(*captions)
    assert scores == pytest.approx(given["cider_each"], **EXACT)
    assert np.mean(scores) == pytest.approx(given["cider"], **EXACT)


def test_plain_cider(vectors, captions) -> None:
    given = vectors("captions")
    scores = cider(*captions, plain=True)
    assert scores == pytest.approx(given["plain_cider_each_selfimpl"], **EXACT)
    assert np.mean(scores) == pytest.approx(given["plain_cider_selfimpl"], **EXACT)


def test_cider_where_it_is_at_its_limits(vectors, captions) -> None:
    given, (candidates, references) = vectors("captions"), captions
    first = [texts[:1] for texts in references]
    assert cider(candidates, first) == pytest.approx(given["cider_single_ref"][1], **EXACT)
    assert cider([texts[0] for texts in first], first) == pytest.approx(given["cider_identical_single_ref"][1], **EXACT)
    assert cider(["", *candidates[1:]], references) == pytest.approx(given["cider_empty_hyp"][1], **EXACT)
    assert cider(candidates[:1], references[:1]) == given["cider_single_image"][1] == [0.0]
    assert cider(["a b", "b a"], [["a b"], ["a b"]]) == given["cider_two_images_same_words"][1]


def test_bleu_equals_coco_caption(vectors, captions) -> None:
    given = vectors("captions")
    statistics = [bleu_statistics(*pair) for pair in zip(*captions, strict=True)]
    for order in range(1, 5):
        each = [bleu_from_statistics(row, order) for row in statistics]
        assert each == pytest.approx(given["bleu_each"][order - 1], **EXACT)
        assert AGGREGATES[f"bleu_{order}"](statistics) == pytest.approx(given["bleu"][order - 1], **EXACT)
        # a row keeps only the numbers that its order needs
        assert AGGREGATES[f"bleu_{order}"]([row[: 2 + 2 * order] for row in statistics]) == pytest.approx(
            given["bleu"][order - 1], **EXACT
        )


def test_rouge_l_equals_coco_caption(vectors, captions) -> None:
    given = vectors("captions")
    scores = [rouge_l(*pair) for pair in zip(*captions, strict=True)]
    assert scores == pytest.approx(given["rouge_l_each"], **EXACT)
    assert np.mean(scores) == pytest.approx(given["rouge_l"], **EXACT)


def test_the_tokenizer_equals_the_java_one(vectors) -> None:
    lines = vectors("ptb")
    assert len(lines) == 22
    for text, expected in lines:
        assert ptb_like(text) == expected[0]
    given = vectors("captions")
    for key in "123":
        assert [ptb_like(text) for text in given["gts_raw"][key]] == given["gts_tok"][key]


@needs_java
@pytest.mark.slow
def test_the_java_programs_when_asked(vectors, captions) -> None:
    given = vectors("captions")
    assert ptb_java([text for text, _ in vectors("ptb")]) == [expected[0] for _, expected in vectors("ptb")]
    awkward = ["", "a\u2028b\x0bc\x85d", "\ud83d", "", "a\nb", ""]
    assert ptb_java(awkward)[0::4] == ["", "a b"]
    assert len(ptb_java(awkward)) == len(awkward)
    statistics = meteor_statistics(*captions)
    assert [meteor_from_statistics(row) for row in statistics] == pytest.approx(given["meteor_each"], **EXACT)
    assert AGGREGATES["meteor_1_5"](statistics) == pytest.approx(given["meteor"], **EXACT)


def random_captions(seed: int, images: int) -> tuple[list[str], list[list[str]]]:
    """Captions of a few words of a small vocabulary, one to six references each, some empty, some repeated."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(draw.choice((5, 30, 200)))]

    def caption() -> str:
        return " ".join(draw.choices(words, k=draw.randint(0, 14)))

    references = [[caption() or "w0" for _ in range(draw.randint(1, 6))] for _ in range(images)]
    for texts in references[::3]:
        texts.append(texts[0])
    return [draw.choice(texts) if draw.random() < 0.2 else caption() for texts in references], references


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_random_caption_sets_equal_pycocoevalcap() -> None:
    """500 sets: CIDEr-D to 1e-9; and on the same sets BLEU-1 to 4 and ROUGE-L."""
    pytest.importorskip("pycocoevalcap")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    for seed in range(500):
        candidates, references = random_captions(seed, images=2 + seed % 12)
        gts = dict(enumerate(references))
        res = {number: [text] for number, text in enumerate(candidates)}
        assert cider(candidates, references) == pytest.approx(list(Cider().compute_score(gts, res)[1]), **EXACT), seed
        bleus, each = Bleu(4).compute_score(gts, res, verbose=0)
        statistics = [bleu_statistics(*pair) for pair in zip(candidates, references, strict=True)]
        for order in range(1, 5):
            assert AGGREGATES[f"bleu_{order}"](statistics) == pytest.approx(bleus[order - 1], **EXACT), seed
            ours = [bleu_from_statistics(row, order) for row in statistics]
            assert ours == pytest.approx(each[order - 1], **EXACT), seed
        ours = [rouge_l(*pair) for pair in zip(candidates, references, strict=True)]
        assert ours == pytest.approx(list(Rouge().compute_score(gts, res)[1]), **EXACT), seed
