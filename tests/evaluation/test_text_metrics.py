"""BLEU, chrF, ROUGE and METEOR equal the libraries' own numbers; in Russian they are what they should be."""

from __future__ import annotations

import random

import pytest
import sacrebleu

from lorgnette.errors import DataError
from lorgnette.evaluation.metrics import text
from lorgnette.evaluation.metrics.aggregate import AGGREGATES

EXACT = {"rel": 0, "abs": 1e-9}
SAID = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]
RUSSIAN = ["Кот сидит на столе.", "Собака бежит по «улице», и лает!", "Да", ""]
RUSSIAN_REFERENCES = [["Кот сидит на стуле."], ["Собака бежала по улице и лаяла."], ["Нет"], ["Это красная машина."]]

GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
GUIDE_REFERENCES = [
    "It is a guide to action that ensures that the military will forever heed Party commands",
    "It is the guiding principle which guarantees the military forces always being under the command of the Party",
    "It is the practical guide for the army always to heed the directions of the party",
]


def corpus(name: str, statistics_of, said, references) -> float:
    return AGGREGATES[name]([statistics_of(*pair) for pair in zip(said, references, strict=True)])


def test_sacrebleus_own_example(vectors) -> None:
    given = vectors("text")
    assert corpus("sacrebleu", text.sacrebleu_statistics, SAID, REFERENCES) == pytest.approx(
        given["sacrebleu_readme"][1], **EXACT
    )
    assert corpus("chrf", text.chrf_statistics, SAID, REFERENCES) == pytest.approx(given["chrf_readme"][1], **EXACT)
    signatures = text.sacrebleu_signatures([2, 2, 2])
    end = f"version:{sacrebleu.__version__}"
    assert signatures["sacrebleu"] == given["sacrebleu_readme"][2].rpartition("version")[0] + end
    assert signatures["chrf"] == given["chrf_readme"][2].rpartition("version")[0] + end


def test_signatures_are_sacrebleus_own() -> None:
    streams = list(zip(*REFERENCES, strict=True))
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    bleu.corpus_score(SAID, streams)
    chrf.corpus_score(SAID, streams)
    made = text.sacrebleu_signatures([2, 2, 2])
    assert made == {"sacrebleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}
    assert text.sacrebleu_signatures([1, 2])["chrf"].startswith("nrefs:var|")


def test_russian_equals_sacrebleu() -> None:
    streams = list(zip(*RUSSIAN_REFERENCES, strict=True))
    ours = corpus("sacrebleu", text.sacrebleu_statistics, RUSSIAN, RUSSIAN_REFERENCES)
    assert ours == pytest.approx(sacrebleu.corpus_bleu(RUSSIAN, streams).score, **EXACT)
    assert ours > 5
    ours = corpus("chrf", text.chrf_statistics, RUSSIAN, RUSSIAN_REFERENCES)
    assert ours == pytest.approx(sacrebleu.corpus_chrf(RUSSIAN, streams).score, **EXACT)


def test_the_russian_vectors_of_sacrebleu(vectors) -> None:
    """One word of five differs; with a second sentence, of which 6, 4, 3 and 2 n-grams match. BLEU sees no more."""
    given = vectors("text")
    one, said = "Кот лежит на столе.", ["Кот лежит на столе.", "Собака весело бежит по нашей улице."]
    references = [["Кот сидит на столе."], ["Собака быстро бежит по нашей улице."]]
    alone = corpus("sacrebleu", text.sacrebleu_statistics, [one], references[:1])
    assert alone == pytest.approx(given["ru_sent_bleu_default_exp"], **EXACT)
    for expected in given["ru_sacrebleu"]:
        assert corpus("sacrebleu", text.sacrebleu_statistics, said, references) == pytest.approx(expected, **EXACT)


def test_corpus_bleu_of_nltks_example(vectors) -> None:
    """Three references and one, as in the documentation of NLTK's corpus_bleu, which gives the same where all match."""
    given = vectors("text")
    said = [GUIDE, "he read the book because he was interested in world history"]
    references = [GUIDE_REFERENCES, ["he was interested in world history because he read the book"]]
    made = corpus("sacrebleu", text.sacrebleu_statistics, said, references)
    assert made == pytest.approx(given["sacrebleu_corpus_same"][0], **EXACT)
    assert made / 100 == pytest.approx(given["nltk_corpus_bleu"], **EXACT)


@pytest.mark.slow
def test_random_texts_equal_sacrebleu() -> None:
    draw = random.Random(0)
    words = ["кот", "Кот,", "dog", "2", "«дом»", "и", "a.", "бежит", "по-русски", "..."]
    for _ in range(300):
        size = draw.randint(1, 8)
        said = [" ".join(draw.choices(words, k=draw.randint(0, 12))) for _ in range(size)]
        references = [[" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(2)] for _ in range(size)]
        streams = list(zip(*references, strict=True))
        ours = corpus("sacrebleu", text.sacrebleu_statistics, said, references)
        assert ours == pytest.approx(sacrebleu.corpus_bleu(said, streams).score, **EXACT)
        ours = corpus("chrf", text.chrf_statistics, said, references)
        assert ours == pytest.approx(sacrebleu.corpus_chrf(said, streams).score, **EXACT)


def test_rouge_on_words_of_any_alphabet(vectors) -> None:
    given = vectors("text")
    fox, log = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."
    legacy = text.rouge(log, [fox], legacy=True)
    assert legacy == pytest.approx({name: given["rouge_readme"][name][2] for name in text.ROUGE}, **EXACT)
    made = text.rouge("кот лежит на столе", ["Кот сидит на столе!"])
    assert made == pytest.approx({name: given["rouge_ru_unicode"][name][2] for name in text.ROUGE}, **EXACT)
    assert text.rouge("Да, кот", ["да кот"])["rougeL"] == 1.0


def test_legacy_rouge_is_as_wrong_as_the_default_tokenizer(vectors) -> None:
    given = vectors("text")
    same = "кот сидит на столе"
    assert text.rouge(same, [same], legacy=True)["rouge1"] == given["rouge_ru_identical_default"]["rouge1"][2] == 0.0
    mixed = text.rouge("В Токио 2 дома", ["У кота 2 лапы"], legacy=True)
    assert mixed["rouge1"] == given["rouge_mixed_default"]["rouge1"][2] == 1.0
    assert "WRONG" in text.LEGACY_NOTE


def meteor(said: str, reference: str, stemmer: str) -> float:
    return text.meteor(said.split(), [reference.split()], stemmer, None)


def test_meteor_equals_nltk(vectors) -> None:
    given = vectors("text")
    references = [reference.split() for reference in GUIDE_REFERENCES]
    for name in ("meteor_hyp1", "meteor_hyp1_no_wordnet"):
        assert text.meteor(GUIDE.split(), references, "porter", None) == pytest.approx(given[name], **EXACT)
    assert text.meteor(GUIDE.split(), references[:1], "porter", None) == pytest.approx(given["single"], **EXACT)
    other = "It is to insure the troops forever hearing the activity guidebook that party direct"
    assert text.meteor(other.split(), references, "porter", None) == pytest.approx(given["meteor_hyp2"], **EXACT)
    cat = "the cat sat on the mat"
    assert meteor("the cat was sat on the mat", cat, "porter") == pytest.approx(given["cat"], **EXACT)
    assert meteor(cat, cat, "porter") == pytest.approx(given["identical"], **EXACT)
    russian = "кот сидит на столе"
    assert meteor(russian, russian, "russian") == pytest.approx(given["ru_identical"], **EXACT)
    inflected = "коты сидят на столах"
    assert meteor(inflected, russian, "porter") == pytest.approx(given["ru_inflected"], **EXACT)
    assert meteor(inflected, russian, "russian") == pytest.approx(given["ru_inflected_snowball"], **EXACT)


def test_meteor_knows_the_stems_of_its_language() -> None:
    said, reference = "красные машины", "красная машина"
    assert meteor(said, reference, "russian") > 0.9
    assert meteor(said, reference, "english") == 0.0
    with pytest.raises(DataError, match=r"Did you mean 'russian'"):
        meteor(said, reference, "rusian")


class Meaning:
    def lemmas(self):
        return [self]

    def name(self) -> str:
        return "automobil"  # NLTK looks words up after stemming them


class WordNet:
    def synsets(self, word: str):
        return [Meaning()] if word == "car" else []


def test_meteor_takes_synonyms_where_they_are_given() -> None:
    said, reference = ["red", "car"], [["red", "automobile"]]
    assert text.meteor(said, reference, "english", None) < text.meteor(said, reference, "english", WordNet())


def test_bleu_of_nothing_is_zero() -> None:
    assert corpus("sacrebleu", text.sacrebleu_statistics, [""], [["кот"]]) == 0.0
    assert corpus("chrf", text.chrf_statistics, [""], [["кот"]]) == 0.0


def test_a_mean_of_kinds() -> None:
    assert AGGREGATES["average_accuracy"]([[0, 1.0], [0, 0.0], [1, 1.0]]) == 0.75
