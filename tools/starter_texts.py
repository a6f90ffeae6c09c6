"""Write the starter language model's whole world: descriptions of things, and talk about them.

Every text is made up by a random generator. The skill it teaches is looking a fact up in a context, given as
sentences, as a caption or as loose notes, and answering in one word; some questions contain a negation.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

COLORS = (
    "black", "white", "gray", "red", "green", "blue", "yellow", "teal", "brown", "orange", "purple", "pink",
    "cyan", "navy", "olive", "magenta",
)  # fmt: skip
NOUNS = {
    "shape": (
        "circle", "ring", "ellipse", "square", "rectangle", "triangle", "star", "cross", "diamond", "hexagon",
        "semicircle", "heart",
    ),
    "animal": ("cat", "dog", "horse", "bird", "fish", "cow", "sheep", "mouse", "frog", "bear"),
    "object": ("cup", "ball", "chair", "table", "book", "lamp", "hat", "car", "boat", "key"),
}  # fmt: skip
SIZES = ("small", "large", "tiny", "huge")
PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
NUMBERS = ("zero", "one", "two", "three", "four")
GROUND_WORDS = ("paper", "plain", "light", "empty", "ground")

COLOR_QUESTIONS = (
    "which color does the {noun} have?", "name the color of the {noun}.", "the {noun} has what color?",
    "what color do you see on the {noun}?", "what is the {noun}'s color?", "tell me the color of the {noun}.",
)  # fmt: skip
ONLY_COLOR_QUESTIONS = (
    "which color do you see?", "name the color of the {kind}.", "tell me the color.",
    "what color does it have?", "what is the color here?",
)  # fmt: skip
NOUN_QUESTIONS = (
    "which {kind} is {color}?", "name the {color} {kind}.", "what {kind} has the color {color}?",
    "what is the {color} {kind} called?", "tell me what is {color}.",
)  # fmt: skip
ONLY_NOUN_QUESTIONS = (
    "which {kind} do you see?", "name the {kind}.", "what {kind} does it contain?", "what {kind} is here?",
    "tell me what {kind} the image shows.",
)  # fmt: skip
YES_NO_QUESTIONS = (
    "do you see {a_x}?", "can you find {a_x}?", "is {a_x} shown?", "does the image show {a_x}?",
    "is {a_x} present in it?", "is there {a_x} somewhere?", "does it contain {a_x}?",
    "is {a_x} in the picture?", "is it true that there is {a_x}?",
)  # fmt: skip
NEGATED_QUESTIONS = (
    "do you see no {x}?", "is no {x} shown?", "does the image not show {a_x}?", "is no {x} present in it?",
    "is there not {a_x} somewhere?", "does it not contain {a_x}?", "is it true that there is no {x}?",
    "is it true that there is not {a_x}?", "is {a_x} missing?", "does the picture not contain any {x}?",
)  # fmt: skip


SHORT_QUESTIONS = ("{x}?", "{a_x}?", "any {x}?")
CAPTIONING_SHARE = 0.125

# A document is a list of pieces; True marks those that answer something.
END, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
Document = list[tuple[str, bool]]


@dataclass(frozen=True)
class Lesson:
    """How hard the texts are, in probabilities.

    Answering a negated question means comparing twice. A model that meets it from the start learns neither
    comparison, so the first lesson has none.
    """

    kinds: tuple[float, ...]  # of dialogues, checklists and prose
    counts: tuple[float, ...]  # of one, two, three and four things
    styles: tuple[float, ...]  # of sentences, a caption and notes
    negated: float
    short: float


FIRST_LESSON = Lesson(kinds=(0.5, 0.4, 0.1), counts=(1, 0, 0, 0), styles=(0, 0.3, 0.7), negated=0.0, short=0.5)
FULL_LESSON = Lesson(
    kinds=(0.75, 0.15, 0.1), counts=(0.7, 0.15, 0.1, 0.05), styles=(0.2, 0.2, 0.6), negated=0.5, short=0.1
)


@dataclass(frozen=True)
class Thing:
    """One thing that a text is about."""

    kind: str
    noun: str
    color: str
    size: str
    place: str


def draw_things(lesson: Lesson, rng: Random) -> list[Thing]:
    """Choose one to four things of one kind, no two with the same noun, colour or place."""
    count = rng.choices([1, 2, 3, 4], weights=lesson.counts)[0]
    kind = rng.choices(list(NOUNS), weights=[60, 20, 20])[0]
    columns = (rng.sample(NOUNS[kind], count), rng.sample(COLORS, count), rng.sample(tuple(PLACES), count))
    return [Thing(kind, noun, color, rng.choice(SIZES), place) for noun, color, place in zip(*columns, strict=True)]


def _with_article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def describe(things: list[Thing], rng: Random) -> str:
    """Describe all the things in sentences, each naming noun, colour, size and place."""
    forms = (
        "there is a {size} {color} {noun} {where}.",
        "{a_color} {noun} is {where} and it is {size}.",
        "the {noun} {where} is {size} and {color}.",
        "{where} you see a {size} {noun} of {color} color.",
    )
    return " ".join(
        rng.choice(forms).format(**vars(t), a_color=_with_article(t.color), where=PLACES[t.place]) for t in things
    )


def caption(things: list[Thing]) -> str:
    """Name colour and noun of each thing."""
    return " and ".join(f"{_with_article(t.color)} {t.noun}" for t in things)


def jot(things: list[Thing], rng: Random) -> str:
    """Jot the things down as loose words: repeated, shuffled within a thing, between empty patches."""
    groups = []
    for thing in things:
        more = rng.choices([thing.color, thing.noun, thing.size, thing.place], k=rng.randint(0, 3))
        words = [thing.color, thing.noun, *more]
        rng.shuffle(words)
        groups.append(words)
    words = [word for group in groups for word in group]
    ground = rng.choice(GROUND_WORDS)
    before, after = (rng.choice([0, rng.randint(0, 6)]) for _ in range(2))
    return " ".join([ground] * before + words + [ground] * after)


def write_context(things: list[Thing], lesson: Lesson, rng: Random) -> tuple[str, str]:
    """Write what the questions will be about; returns the style and the text."""
    style = rng.choices(["sentences", "caption", "notes"], weights=lesson.styles)[0]
    texts = {"sentences": describe(things, rng), "caption": caption(things), "notes": jot(things, rng)}
    return style, texts[style]


def ask(things: list[Thing], lesson: Lesson, rng: Random) -> tuple[str, str]:
    """Make up one question about the things; returns it with its one-word answer."""
    thing = rng.choice(things)
    topic = rng.choices(["color", "noun", "yes/no"], weights=[15, 15, 70])[0]
    if topic == "color":
        forms = COLOR_QUESTIONS + (ONLY_COLOR_QUESTIONS if len(things) == 1 else ())
        return rng.choice(forms).format(**vars(thing)), thing.color
    if topic == "noun":
        forms = NOUN_QUESTIONS + (ONLY_NOUN_QUESTIONS if len(things) == 1 else ())
        return rng.choice(forms).format(**vars(thing)), thing.noun
    return _ask_yes_no(things, lesson, rng)


def ask_detail(things: list[Thing], rng: Random) -> tuple[str, str]:
    """Ask for a place, a size or a number: facts that only sentences give."""
    thing = rng.choice(things)
    return rng.choice(
        [
            (f"where is the {thing.noun}?", thing.place),
            (f"how big is the {thing.noun}?", thing.size),
            (f"how many {thing.kind}s are there?", NUMBERS[len(things)]),
        ]
    )


def _ask_yes_no(things: list[Thing], lesson: Lesson, rng: Random) -> tuple[str, str]:
    """Ask whether something is there, or is not; the answer is "yes" as often as "no"."""
    kind = things[0].kind
    by_color, present, negated = rng.random() < 0.6, rng.random() < 0.5, rng.random() < lesson.negated
    here = {t.color if by_color else t.noun for t in things}
    absent = [word for word in (COLORS if by_color else NOUNS[kind]) if word not in here]
    word = rng.choice(sorted(here) if present else absent)
    plain = SHORT_QUESTIONS if rng.random() < lesson.short else YES_NO_QUESTIONS
    forms = NEGATED_QUESTIONS if negated else plain
    sought = f"{word} {kind}" if by_color else word
    question = rng.choice(forms).format(x=sought, a_x=_with_article(sought))
    return question, "yes" if present != negated else "no"


def write_dialogue(lesson: Lesson, rng: Random) -> Document:
    """Write a chat: a context with a question or two, each answered in one word.

    Now and then the context stands alone, and the answer is its caption.
    """
    things = draw_things(lesson, rng)
    style, context = write_context(things, lesson, rng)
    if rng.random() < CAPTIONING_SHARE:
        return _exchange(context, caption(things))
    document: Document = []
    for opening in (f"{context}\n", "")[: rng.choice([1, 1, 1, 2])]:
        if style == "sentences" and rng.random() < 0.3:
            question, answer = ask_detail(things, rng)
        else:
            question, answer = ask(things, lesson, rng)
        document += _exchange(opening + question, answer)
    return document


def _exchange(said: str, answered: str) -> Document:
    prompt = f"{TURN_START}user\n{said}{TURN_END}\n{TURN_START}assistant\n"
    return [(prompt, False), (f"{answered}{TURN_END}", True), ("\n", False)]


def write_checklist(lesson: Lesson, rng: Random) -> Document:
    """Write a context and words with verdicts: "red yes star no". Only the verdicts are answers.

    Whether a word occurred before is the hard half of every yes-or-no question. Verdicts right behind the
    words teach it within a few hundred steps; with questions alone it took thousands.
    """
    things = draw_things(lesson, rng)
    _, context = write_context(things, lesson, rng)
    here = [word for thing in things for word in (thing.color, thing.noun)]
    absent = [word for word in (*COLORS, *NOUNS[things[0].kind]) if word not in here]
    words = here + rng.sample(absent, len(here) + 1)
    rng.shuffle(words)
    document: Document = [(f"{END}{context}\n", False)]
    for word in words:
        document += [(f" {word}", False), (" yes" if word in here else " no", True)]
    return [*document, (END, False)]


def write_prose(lesson: Lesson, rng: Random) -> Document:
    """Write a short plain text: a description and a remark or two that follow from it."""
    things = draw_things(lesson, rng)
    thing = rng.choice(things)
    remarks = (
        f"the color of the {thing.noun} is {thing.color}.",
        f"the {thing.color} {thing.kind} is the {thing.noun}.",
        f"the {thing.noun} is {thing.size}.",
        f"the picture shows {caption(things)}.",
    )
    text = " ".join([describe(things, rng), *rng.sample(remarks, 2)])
    return [(f"{END}{text}{END}", False)]


def write_corpus(count: int, seed: int) -> Iterator[Document]:
    """Yield `count` documents: dialogues, checklists and a little prose.

    The first third is the first lesson; from there on the full lesson takes over, up to 85 %.
    """
    rng = Random(seed)
    for index in range(count):
        full_share = min(max((index / count - 1 / 3) * 6, 0.0), 0.85)
        lesson = FULL_LESSON if rng.random() < full_share else FIRST_LESSON
        write = rng.choices([write_dialogue, write_checklist, write_prose], weights=lesson.kinds)[0]
        yield write(lesson, rng)
