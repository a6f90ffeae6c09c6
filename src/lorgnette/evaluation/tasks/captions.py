"""Any set of images with several captions each: COCO, RSICD, UCM, NWPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lorgnette.data.readers.caption_tables import CaptionedImage, captions_source
from lorgnette.data.readers.captions import PROMPT, captioned_images
from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import DataError, RowError
from lorgnette.evaluation.metrics import coco_captions, ptb, text
from lorgnette.evaluation.metrics.cider import HIGHEST, cider
from lorgnette.evaluation.metrics.coco_java import meteor_statistics
from lorgnette.evaluation.tasks.source import required_path
from lorgnette.evaluation.tasks.task import Document, Score, Scored

ORDERS = range(1, coco_captions.ORDERS + 1)


@dataclass(frozen=True, kw_only=True)
class Captions:
    """CIDEr-D and CIDEr, BLEU-1 to 4, ROUGE-L and METEOR, as captioning papers give them; without Java unless asked.

    Fields:
        java: tokenise by Stanford's tokenizer and compute METEOR 1.5 (English), as papers do.
        stemmer: the language of METEOR's stemmer, one of NLTK's Snowball stemmers, without Java.
        wordnet: let METEOR match English synonyms by WordNet, without Java.
    """

    name: ClassVar[str] = "captions"
    metric: ClassVar[str] = "cider_d"
    split: ClassVar[str] = "test"
    prompt: ClassVar[str] = "{question}"
    max_new_tokens: ClassVar[int] = 64

    path: str | None = None
    images: str | None = None
    java: bool = False
    stemmer: str = "english"
    wordnet: bool = False

    def documents(self, split: str) -> Iterator[Document | DataError]:
        """Read the images of a split of a file, a folder or a set of the hub; a file without splits is read whole.

        Raises:
            DataError: if they cannot be read, or have no such split.
        """
        path = required_path(self.path, self.name, "a file of captions")
        for row in self._rows(captions_source(path, split), split):
            if isinstance(row, DataError):
                yield row
            else:
                question = row.prompt.replace(IMAGE_TAG, "").strip() or PROMPT
                yield Document(row.id, (row.image,), question, row.references, row.category or None)

    def _rows(self, source: str, split: str) -> Iterable[CaptionedImage | RowError]:
        if split == self.split and Path(source).is_file():
            rows = list(captioned_images(source, None, self.images))
            if not any(row.split for row in rows if isinstance(row, CaptionedImage)):
                return rows
        return captioned_images(source, split, self.images)

    def score_all(self, documents: Sequence[Document], answers: Sequence[str]) -> Scored:
        """Tokenise captions and references alike and score them together: CIDEr needs the words of the whole set."""
        candidates, references = self._tokens(documents, answers)
        columns: dict[str, Sequence[float]] = {
            "cider_d": cider(candidates, references),
            "cider": cider(candidates, references, plain=True),
            "rouge_l": [coco_captions.rouge_l(*pair) for pair in zip(candidates, references, strict=True)],
        }
        bleu = [coco_captions.bleu_statistics(*pair) for pair in zip(candidates, references, strict=True)]
        statistics: dict[str, Sequence[Sequence[float]]] = {
            f"bleu_{n}": [row[: 2 + 2 * n] for row in bleu] for n in ORDERS
        }
        columns |= {f"bleu_{n}": [coco_captions.bleu_from_statistics(row, n) for row in bleu] for n in ORDERS}
        if self.java:
            statistics["meteor_1_5"] = meteor_statistics(candidates, references)
            columns["meteor_1_5"] = [coco_captions.meteor_from_statistics(row) for row in statistics["meteor_1_5"]]
        else:
            columns["meteor"] = self._meteor(candidates, references)
        rows = [
            Score(
                {name: column[at] for name, column in columns.items()},
                {name: numbers[at] for name, numbers in statistics.items()},
            )
            for at in range(len(documents))
        ]
        highest = {"cider_d": HIGHEST, "cider": HIGHEST}
        return Scored(rows, self._notes(len(documents)), warnings=_warnings(len(documents)), highest=highest)

    def _tokens(self, documents: Sequence[Document], answers: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        said = [[answer, *document.references] for document, answer in zip(documents, answers, strict=True)]
        texts = [one for row in said for one in row]
        tokens = iter(ptb.ptb_java(texts) if self.java else map(ptb.ptb_like, texts))
        rows = [[next(tokens) for _ in row] for row in said]
        return [row[0] for row in rows], [row[1:] for row in rows]

    def _meteor(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        synonyms = text.find_wordnet() if self.wordnet else None
        return [
            text.meteor(candidate.split(), [one.split() for one in row], self.stemmer, synonyms)
            for candidate, row in zip(candidates, references, strict=True)
        ]

    def _notes(self, images: int) -> Mapping[str, str]:
        tokens = ptb.JAVA_NOTE if self.java else ptb.NOTE
        rarity = f"0 to {HIGHEST:g}; words weighed by the references of these {images:,} images; {tokens}"
        return {
            "cider_d": f"what papers call CIDEr; {rarity}",
            "cider": f"plain CIDEr, neither clipped nor penalised; {rarity}",
            "rouge_l": f"coco-caption's, beta 1.2; {tokens}",
            **{f"bleu_{n}": f"coco-caption's, closest reference length; {tokens}" for n in ORDERS},
            "meteor": text.meteor_note(self.stemmer, self.wordnet),
            "meteor_1_5": f"METEOR 1.5 for English, normalised; {tokens}",
        }


def _warnings(images: int) -> list[str]:
    if images > 1:
        return []
    return ["With one image CIDEr is 0 whatever the caption says: no word is rarer than another. Next: score more."]
