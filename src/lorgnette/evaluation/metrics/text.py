"""BLEU, chrF, ROUGE and METEOR of free text, by the libraries that papers cite, set so that they work in Russian.

sacreBLEU counts BLEU and chrF, rouge-score ROUGE, NLTK METEOR. Two of them need help: rouge-score's own tokenizer
deletes every letter that is not a-z, and METEOR's stemmer is English unless told otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from lorgnette.errors import DataError, MissingExtra, nearest

ROUGE = ("rouge1", "rouge2", "rougeL")
LEGACY_NOTE = (
    "WRONG on anything but ASCII: rouge_score's default tokenizer deletes all other letters, so that Cyrillic texts "
    "are compared by their digits and Latin letters alone. Only to compare with numbers that were computed so."
)
CHAR_ORDERS = 6
CHRF_BETA = 2


class Synonyms(Protocol):
    """What METEOR needs of WordNet."""

    def synsets(self, word: str) -> Sequence[Any]:
        """Return the meanings of a word, each with `lemmas()`."""


class _Words:
    """A tokenizer for rouge-score: lower-case words of any alphabet."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


class _NoSynonyms:
    def synsets(self, _word: str) -> Sequence[Any]:
        return ()


def unicode_words(text: str) -> list[str]:
    r"""Return the lower-case words of a text in any alphabet: runs of `\w`."""
    return re.findall(r"\w+", text.lower())


def sacrebleu_statistics(answer: str, references: Sequence[str]) -> list[float]:
    """Return what an answer adds to sacreBLEU's corpus BLEU (tokenizer 13a): lengths, matches, n-grams.

    Raises:
        MissingExtra: if sacrebleu is not installed.
    """
    score = _bleu().sentence_score(answer, list(references))
    return [float(value) for value in (score.sys_len, score.ref_len, *score.counts, *score.totals)]


def sacrebleu_from_statistics(statistics: Sequence[float]) -> float:
    """Return BLEU, 0 to 100, from summed statistics, with sacreBLEU's smoothing `exp` (Chen and Cherry 2014, no. 3)."""
    length, reference, *numbers = statistics
    matches, ngrams = numbers[:4], numbers[4:]
    if not any(matches) or not all(ngrams):
        return 0.0
    logarithms, smooth = 0.0, 1.0
    for matched, of in zip(matches, ngrams, strict=True):
        smooth *= 1.0 if matched else 2.0
        logarithms += math.log((matched or 1 / smooth) / of)
    brevity = math.exp(1 - reference / length) if length < reference else 1.0
    return 100 * brevity * math.exp(logarithms / len(matches))


def sacrebleu_signatures(reference_counts: Sequence[int]) -> dict[str, str]:
    """Return the signatures of BLEU and chrF, as sacreBLEU would print them for so many references an answer.

    Raises:
        MissingExtra: if sacrebleu is not installed.
    """
    library = _sacrebleu()
    count = str(reference_counts[0]) if len(set(reference_counts)) == 1 else "var"
    end = f"version:{library.__version__}"
    return {
        "sacrebleu": f"nrefs:{count}|case:mixed|eff:no|tok:13a|smooth:exp|{end}",
        "chrf": f"nrefs:{count}|case:mixed|eff:yes|nc:{CHAR_ORDERS}|nw:0|space:no|{end}",
    }


def chrf_statistics(answer: str, references: Sequence[str]) -> list[float]:
    """Return what an answer adds to corpus chrF, by the reference that it is closest to.

    For every order of character n-grams: those of the answer, of the reference, of both (Popović 2015).

    Raises:
        MissingExtra: if sacrebleu is not installed.
    """
    found = _character_ngrams(answer)
    candidates = []
    for reference in references:
        statistics: list[float] = []
        for ours, theirs in zip(found, _character_ngrams(reference), strict=True):
            both = sum(min(count, theirs[ngram]) for ngram, count in ours.items() if ngram in theirs)
            statistics += [float(sum(ours.values())) if theirs else 0.0, float(sum(theirs.values())), float(both)]
        candidates.append(statistics)
    return max(candidates, key=chrf_from_statistics)


def chrf_from_statistics(statistics: Sequence[float]) -> float:
    """Return chrF with beta 2, 0 to 100, from summed statistics; orders that one side does not have are left out."""
    orders = [statistics[at : at + 3] for at in range(0, len(statistics), 3)]
    defined = [(ours, theirs, both) for ours, theirs, both in orders if ours and theirs]
    if not defined:
        return 0.0
    precision = sum(both / ours for ours, _, both in defined) / len(defined)
    recall = sum(both / theirs for _, theirs, both in defined) / len(defined)
    if not precision + recall:
        return 0.0
    return 100 * (1 + CHRF_BETA**2) * precision * recall / (CHRF_BETA**2 * precision + recall)


def rouge(answer: str, references: Sequence[str], *, legacy: bool = False) -> dict[str, float]:
    """Return the F-measures of ROUGE-1, -2 and -L, each by the reference that gives the highest.

    Args:
        legacy: with rouge_score's own tokenizer and stemmer, which is wrong on Cyrillic; see `LEGACY_NOTE`.

    Raises:
        MissingExtra: if rouge-score is not installed.
    """
    scores = _rouge(legacy).score_multi(list(references), answer)
    return {name: float(scores[name].fmeasure) for name in ROUGE}


def meteor(
    answer: Sequence[str], references: Sequence[Sequence[str]], stemmer: str, synonyms: Synonyms | None
) -> float:
    """Return NLTK's METEOR of tokenised texts, by the best reference: alpha 0.9, beta 3, gamma 0.5.

    It is not METEOR 1.5, the program that captioning papers run: that has weights of its own and paraphrases. An
    identical text scores a little under 1.

    Args:
        stemmer: a language of NLTK's Snowball stemmer, or "porter".
        synonyms: WordNet, or None to match words and stems only.

    Raises:
        DataError: if there is no such stemmer.
        MissingExtra: if nltk is not installed.
    """
    scorer, made = _meteor(stemmer)
    return float(scorer(references, answer, stemmer=made, wordnet=synonyms or _NoSynonyms()))


def meteor_note(stemmer: str, wordnet: bool) -> str:
    """Say which METEOR `meteor` computes."""
    matches = "words, stems and WordNet's synonyms" if wordnet else "words and stems"
    return f"NLTK's METEOR by {matches} (stemmer: {stemmer}); not METEOR 1.5, which papers on captions give"


def find_wordnet() -> Synonyms:
    """Return NLTK's WordNet.

    Raises:
        DataError: if its data is not where NLTK looks for it.
        MissingExtra: if nltk is not installed.
    """
    try:
        from nltk.corpus import wordnet  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("nltk", "metrics") from error
    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise DataError(
            "WordNet is not where NLTK looks for it. Next: unpack corpora/wordnet into a folder and set NLTK_DATA to "
            "it, or leave the option `wordnet` out."
        ) from error
    return wordnet  # type: ignore[no-any-return]


def _character_ngrams(text: str) -> list[Mapping[str, int]]:
    try:
        from sacrebleu.metrics.helpers import extract_all_char_ngrams  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("sacrebleu", "metrics") from error
    return list(extract_all_char_ngrams(text, CHAR_ORDERS, include_whitespace=False))


def _sacrebleu() -> Any:
    try:
        import sacrebleu  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("sacrebleu", "metrics") from error
    return sacrebleu


@cache
def _bleu() -> Any:
    return _sacrebleu().BLEU(effective_order=True)  # of a sentence only its counts are taken


@cache
def _rouge(legacy: bool) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("rouge-score", "metrics") from error
    return RougeScorer(ROUGE, use_stemmer=legacy, tokenizer=None if legacy else _Words())


@cache
def _meteor(stemmer: str) -> tuple[Callable[..., float], Any]:
    try:
        from nltk.stem import SnowballStemmer  # noqa: PLC0415
        from nltk.translate.meteor_score import meteor_score  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtra("nltk", "metrics") from error
    if stemmer not in SnowballStemmer.languages:
        allowed = SnowballStemmer.languages
        raise DataError(f"there is no stemmer '{stemmer}'. Allowed: {', '.join(allowed)}.{nearest(stemmer, allowed)}")
    return meteor_score, SnowballStemmer(stemmer)
