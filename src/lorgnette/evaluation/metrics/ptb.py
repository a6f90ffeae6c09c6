"""Penn Treebank tokens as coco-caption makes them before it counts: lower case, punctuation dropped.

coco-caption runs Stanford's PTBTokenizer 3.4.1 with -lowerCase and drops a list of tokens that is upper-case, so that
"(x)" stays as "-lrb- x -rrb-". `ptb_like` does the same without Java; it was made by comparing with the real one. It is
equal on ordinary captions, an approximation elsewhere, and marked so in results. `ptb_java` runs the real one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from lorgnette.errors import RunError
from lorgnette.evaluation.metrics.coco_java import run_jar

NOTE = "tokens like the Penn Treebank's, made without Java: coco-caption's on ordinary captions, close to it on others"
JAVA_NOTE = "Stanford PTBTokenizer 3.4.1, as in coco-caption"
PUNCTUATION = "'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;"
DROPPED = frozenset(PUNCTUATION.split())
LAST = "end"
"""The line after the last caption: where it comes out tells that none was lost or split."""

ABBREVIATIONS = (
    "mr mrs ms dr prof st sr jr etc vs cf al gen col sgt capt lt rep sen gov pres dept ave mt ft jan feb mar apr jun "
    "jul aug sep sept oct nov dec mon tue tues wed thu thurs fri inc ltd co corp bros bldg ste sq ct est blvd rd rev "
    "hon esq messrs mme maj adm cmdr cpl pvt supt det insp ph.d"
)
STARTS = "a an and as at but for he i if in it no on she so that the there these they this those we you"
"""After a letter with a full stop, one of these in capitals begins a sentence: the letter is no initial."""

SPELLED = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
    "'tis": "'t is",
    "'twas": "'t was",
    "y'all": "y' all",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    "¢": "cents",
    "£": "#",
    "€": "$",
    "¤": "$",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "&nbsp;": "",
    '"': "''",
}
AS_ASCII = str.maketrans(
    dict.fromkeys("’‘‛‹›", "'") | dict.fromkeys("“”«»", '"') | dict.fromkeys("–—―", "--") | {"…": "..."}
)
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ABBREVIATED = "|".join(map(re.escape, ABBREVIATIONS.split()))
_SENTENCE = "|".join(word.capitalize() for word in STARTS.split())
TOKEN = re.compile(
    rf"""
    # addresses, mark-up, tags and faces
    https?://[^\s<>"]*[\w/] | (?:www\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|org|net|edu|gov)\b
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)* | </?[a-z][^<>]*> | &(?:amp|lt|gt|nbsp); | [@\#](?=[a-z_])\w+
    | [:;=]['-]?[()] | [:;]-?D\b
    # words with an apostrophe of their own, then endings that become tokens
    | (?<!\w)'(?:tis|twas|em|cause|til|n')(?!\w) | (?<!\w)'\d0s\b | 'n(?!\w)'?
    | y'all\b | (?:dunkin|somethin|ol)'(?!\w)
    | \w+(?=n't\b) | n't\b | '(?:s|m|d|re|ve|ll)\b
    # full stops that belong to their word: U.S., etc., No. 5, a lone letter unless a sentence begins behind it
    | (?:[a-z]\.){{2,}}(?:-\w+)* | (?:{_ABBREVIATED})\.(?!\w) | (?:no|fig)\.(?=\s*\d)
    | (?<!\w)[a-ik-uw-z]\.(?=\s*$) | (?<!\w)[a-z]\.(?=\s+(?!(?-i:{_SENTENCE})\b)\S)
    # numbers and money
    | \d{{1,2}}:\d\d | [-+]\d+(?:[.,]\d+)*(?!\w) | \.\d+(?!\w) | \d+(?:[.,]\d+)+ | \d+(?:[:/-]\d+)+(?!\w)
    | (?-i:[A-Z]+&[A-Z]+)\b | (?:us|a|c|hk)\$
    # words: o'clock, d'eau, ma'am; joined by hyphens, slashes, full stops without a space
    | (?:[dol]'(?=[^\W\d_]) | [a-hj-xz]'(?=[a-zà-ÿ]{{2}}) | [a-z]*[aeiouy]'(?=[aeiou]))?
      \w+(?:-\w+ | \.(?=[^\W\d_])\w+ | [!?](?=[a-z])\w+ | (?<=[a-z0-9])/(?=[a-z0-9])\w+)*
    | [!?]{{2,}} | \.{{3,}} | -{{2,}} | \S
    """,
    re.VERBOSE | re.IGNORECASE,
)


def ptb_like(text: str) -> str:
    """Return the tokens of a caption, lower-case and without punctuation, joined by spaces."""
    known = "".join(_known(letter) for letter in text.replace("\n", " ").translate(AS_ASCII))
    tokens: list[str] = []
    for found in TOKEN.findall(known):
        tokens += _spelled(found.lower())
    return _without_punctuation(tokens)


def ptb_java(texts: Sequence[str]) -> list[str]:
    """Tokenise captions by coco-caption's own tokenizer.

    Raises:
        MissingExtra: if pycocoevalcap is not installed.
        DataError: if there is no Java.
        RunError: if the tokenizer fails.
    """
    lines = "\n".join([*(" ".join(text.split()) for text in texts), LAST])
    program = ("edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase")
    made = run_jar("tokenizer/stanford-corenlp-3.4.1.jar", program, lines).split("\n")
    if made[len(texts) :][:1] != [LAST]:
        raise RunError(f"the tokenizer gave {len(made) - 1:,} lines for {len(texts):,} captions.")
    return [_without_punctuation(line.rstrip().split(" ")) for line in made[: len(texts)]]


def _known(letter: str) -> str:
    """Return a letter, or what the tokenizer makes of one that it does not know."""
    if letter == "\N{SOFT HYPHEN}":
        return ""
    unknown = ord(letter) > 0xFFFF or unicodedata.category(letter) in ("Cf", "Co", "Cn") or letter in "‐‑‒₽\ufffd\ufe0f"
    return " " if unknown else letter


def _spelled(token: str) -> list[str]:
    if token in SPELLED:
        return SPELLED[token].split()
    if token in BRACKETS:
        return [BRACKETS[token]]
    if token[-1] in "()" and len(token) > 1 and token[0] in ":;=":  # a face
        return [token[:-1] + BRACKETS[token[-1]]]
    return ["..."] if token.startswith("...") else ["--"] if token in ("---", "----") else [token]


def _without_punctuation(tokens: Sequence[str]) -> str:
    return " ".join(token for token in tokens if token and token not in DROPPED)
