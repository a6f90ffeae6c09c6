"""What conversations become, kept small and kept for the next start: token ids and labels of each distinct one.

A conversation is known by the hash of its turns, a file of the cache by all else that decides what becomes of them:
tokenizer, template, limits, our code and the libraries. So a hit is what rendering gives, whatever became of the data
file in between. Errors are not kept, they are found anew; images are one token each, their pixels are nowhere here.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lorgnette import __version__
from lorgnette.data import pairs, rendered, rendering, sample, templates
from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.rendered import IGNORE_INDEX, Encoded
from lorgnette.data.sample import Sample, Turn, check_sample
from lorgnette.run import cache_folder

FEWEST = 5_000
"""New conversations that are worth writing a file for: a second or two of rendering."""
PIECE = 10_000
"""Conversations whose tokens are added up at a time: numpy copies them to add them."""
KEY_BYTES = 16
DTYPES = {"keys": np.uint8, "ends": np.int64, "ids": np.int32, "supervised": np.uint8, "shortened": np.int32}


class Encodings:
    """Token ids and labels of conversations, each once, by the place at which it was added.

    Args:
        file: where they are kept from start to start; None for not at all.

    Attributes:
        notes: what became of the file, where a person should know.
        known: how many came from the file.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.notes: list[str] = []
        self._places: dict[bytes, int] = {}
        self._ends = array("q")
        self._ids = array("i")
        self._supervised = array("B")
        self._shortened = array("i")
        self._used = bytearray()
        self.known = 0 if file is None else self._load(file)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> Encoded:
        """Return what `Renderer.encode` gave."""
        span = self._span(place)
        ids = tuple(self._ids[span])
        marks = self._supervised[span]
        labels = tuple([token if mark else IGNORE_INDEX for token, mark in zip(ids, marks, strict=True)])
        return Encoded(ids, labels, self._shortened[place])

    def place_of(self, sample: Sample, renderer: AnyRenderer) -> int:
        """Return the place of a sample's conversation, which is rendered if it is new.

        Raises:
            DataError: as `Renderer.render`.
        """
        check_sample(sample)
        key = key_of(sample.turns)
        place = self._places.get(key)
        if place is None:
            place = self._add(key, renderer.encode(sample))
        self._used[place] = 1
        return place

    def content(self, place: int) -> bytes:
        """Return ids and labels as bytes, to be hashed."""
        span = self._span(place)
        return self._ids[span].tobytes() + self._supervised[span].tobytes()

    def counts(self, image_token_id: int) -> np.ndarray:
        """Return an array (conversations, 4): text tokens, images, supervised tokens, tokens that were cut."""
        ids, ends = np.frombuffer(self._ids, np.int32), np.frombuffer(self._ends, np.int64)
        marks, lengths = np.frombuffer(self._supervised, np.uint8), _lengths(ends)
        found = np.empty((len(self), 4), np.int64)
        for first in range(0, len(self), PIECE):
            piece = slice(first, first + PIECE)
            starts = ends[piece] - lengths[piece]
            tokens = slice(starts[0], ends[piece][-1])
            found[piece, 1] = np.add.reduceat(ids[tokens] == image_token_id, starts - starts[0], dtype=np.int64)
            found[piece, 2] = np.add.reduceat(marks[tokens], starts - starts[0], dtype=np.int64)
        found[:, 0] = lengths - found[:, 1]
        found[:, 3] = np.frombuffer(self._shortened, np.int32)
        return found

    def keep(self) -> None:
        """Write the file anew if enough is new, without what was not asked for this time."""
        if self.file is None or len(self) - self.known < FEWEST:
            return
        used = np.frombuffer(self._used, np.bool_)
        lengths = _lengths(np.frombuffer(self._ends, np.int64))
        tokens = np.repeat(used, lengths)
        keys = np.frombuffer(b"".join(self._places), np.uint8).reshape(-1, KEY_BYTES)
        arrays = {
            "keys": keys[used],
            "ends": np.cumsum(lengths[used]),
            "ids": np.frombuffer(self._ids, np.int32)[tokens],
            "supervised": np.frombuffer(self._supervised, np.uint8)[tokens],
            "shortened": np.frombuffer(self._shortened, np.int32)[used],
        }
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.file.parent, suffix=".unfinished", delete=False) as unfinished:
                pass
            save_file(arrays, unfinished.name)
            os.replace(unfinished.name, self.file)
        except (OSError, SafetensorError) as error:
            self.notes.append(f"the cache {self.file} could not be written ({error}); the next start renders anew")

    def _span(self, place: int) -> slice:
        return slice(self._ends[place - 1] if place else 0, self._ends[place])

    def _add(self, key: bytes, encoded: Encoded) -> int:
        place = len(self)
        self._places[key] = place
        self._ids.extend(encoded.input_ids)
        self._supervised.extend(label != IGNORE_INDEX for label in encoded.labels)
        self._ends.append(len(self._ids))
        self._shortened.append(encoded.shortened)
        self._used.append(0)
        return place

    def _load(self, file: Path) -> int:
        """Read the file, if there is one; return how many conversations it holds."""
        if not file.is_file():
            return 0
        try:
            with safe_open(file, framework="np") as stored:
                arrays = {name: stored.get_tensor(name) for name in DTYPES}
            count, tokens = len(arrays["ends"]), len(arrays["ids"])
            lengths = _lengths(arrays["ends"])
            shapes = {name: array.shape[0] for name, array in arrays.items()}
            expected = {"keys": count, "ends": count, "ids": tokens, "supervised": tokens, "shortened": count}
            if shapes != expected or lengths.sum() != tokens or lengths.min(initial=1) < 1:
                raise ValueError("its arrays do not fit together")
            if any(arrays[name].dtype != dtype for name, dtype in DTYPES.items()):
                raise ValueError("its arrays are of other types")
        except (OSError, SafetensorError, ValueError) as error:
            self.notes.append(f"the cache {file} could not be read ({error}); it is made anew")
            return 0
        keys = arrays.pop("keys").tobytes()
        self._places = {keys[n * KEY_BYTES : (n + 1) * KEY_BYTES]: n for n in range(count)}
        self._ends.frombytes(arrays.pop("ends").tobytes())
        self._ids.frombytes(arrays.pop("ids").tobytes())
        self._supervised.frombytes(arrays.pop("supervised").tobytes())
        self._shortened.frombytes(arrays.pop("shortened").tobytes())
        self._used = bytearray(count)
        return count


def _lengths(ends: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.diff(ends, prepend=np.int64(0))
    return lengths


def key_of(turns: Sequence[Turn]) -> bytes:
    """Hash the turns of a conversation; lengths keep any two conversations apart."""
    text = "".join([f"{turn.role}{len(turn.text)}:{turn.text}" for turn in turns])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def cache_file(renderer: AnyRenderer, *source: str | None) -> Path:
    """Return the file of a renderer and a source in the cache.

    The source only keeps the files of different sets apart; what is in them is found by content.
    """
    digest = hashlib.sha256(json.dumps([fingerprint(renderer), source]).encode()).hexdigest()
    return cache_folder("rendered") / f"{digest[:32]}.safetensors"


def fingerprint(renderer: AnyRenderer) -> str:
    """Hash all that decides what becomes of a conversation, apart from its turns."""
    modules = (sample, templates, rendered, rendering, pairs)
    decides = [
        *renderer.decides(),
        __version__,
        [version(name) for name in ("tokenizers", "transformers", "jinja2")],
        [Path(str(module.__file__)).read_text(encoding="utf-8") for module in modules],
    ]
    return hashlib.sha256(json.dumps(decides, default=str).encode()).hexdigest()
