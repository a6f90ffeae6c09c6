"""VQA accuracy: the normalisation of the VQA challenge, and soft accuracy over several people's answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
ARTICLES = ("a", "an", "the")
PUNCTUATION = ';/[]"{}()=+\\_->@`,?!<'
PERIOD = re.compile(r"\.(?!\d)")
COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
MOST_PERIODS = 32
"""Upstream passes re.UNICODE, which is 32, where `sub` takes the most replacements: later full stops stay."""

CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've "
    "might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've "
    "shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll "
    "someone's something'd something'd've something'll that's there'd there'd've there're there's they'd "
    "they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've "
    "when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
CONTRACTIONS = {
    f"{word[:at]}{word[at + 1 :]}": word
    for word in CONTRACTED.split()
    for at, letter in enumerate(word)
    if letter == "'"
} | {"somebody'd": "somebodyd"}
"""A contraction that lacks one apostrophe -> the contraction; the last entry is upstream's own slip."""

FEWEST_ANSWERS = 4
"""With fewer answers, three others can never agree, and soft accuracy is whether one of them was given."""


def evalai_normalised(text: str) -> str:
    """Normalise an answer as the VQA challenge's server does: case, punctuation, number words, articles.

    As MMF's and LLaVA's `EvalAIAnswerProcessor` (llava/eval/m4c_evaluator.py), with its slips, so that scores agree.
    Made for English: other languages lose case and ASCII punctuation only.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.strip().replace("\n", " ").replace("\t", " ").strip()
    kept = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if beside_space or COMMA_IN_NUMBER.search(text) else " ")
    kept = PERIOD.sub("", kept, count=MOST_PERIODS)
    words = [NUMBERS.get(word, word) for word in kept.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return how many people gave this answer, three being enough: the mean over all people of min(1, others / 3).

    Every person is left out once, so that ten answers of which three agree give 0.9 (Antol et al. 2015, VQA;
    PythonEvaluationTools/vqaEvaluation/vqaEval.py). With fewer than four answers: 1.0 if one of them was given.
    """
    given = evalai_normalised(answer)
    same = [evalai_normalised(reference) == given for reference in references]
    if len(references) < FEWEST_ANSWERS:
        return float(any(same))
    return sum(min(1.0, (sum(same) - equal) / 3) for equal in same) / len(same)
