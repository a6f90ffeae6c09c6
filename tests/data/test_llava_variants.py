"""Every way in which conversations are written in the wild, with the exact sample that each becomes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lorgnette.data.readers import VARIANTS, read_samples
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Sample, check_sample
from lorgnette.errors import DataError, LeftOut, RowError

ASK, ANSWER = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}
PAIR = [ASK, ANSWER]
BARE = [{"from": "human", "value": "What?"}, ANSWER]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200)) * 2
BASE64 = base64.b64encode(PNG).decode()
KEPT = f"images/{hashlib.sha256(PNG).hexdigest()[:2]}/{hashlib.sha256(PNG).hexdigest()}"
OPENAI = [
    {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
            {"type": "text", "text": "What?"},
        ],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
]
INSERTED = "image tag inserted"
TAGGED = ("<image>\nWhat?", "A cat.")


def says(*texts: str) -> list[dict[str, str]]:
    return [{"from": "human" if n % 2 == 0 else "gpt", "value": text} for n, text in enumerate(texts)]


# name -> (row, images, texts, mended, variant)
ROWS: dict[str, tuple[dict[str, Any], list[str], tuple[str, ...], tuple[str, ...], str]] = {
    "LLaVA": (
        {"image": "a.jpg", "conversations": PAIR},
        ["a.jpg"],
        TAGGED,
        (),
        "conversations of from/value; image: path; tag at start",
    ),
    "list of images": (
        {"image": ["a.jpg", "b.jpg"], "conversations": says("<image>\n<image>\nSame?", "No.")},
        ["a.jpg", "b.jpg"],
        ("<image>\n<image>\nSame?", "No."),
        (),
        "conversations of from/value; image: list of path; tag at start, repeated",
    ),
    "comma string": (
        {
            "image": "0.jpg, 1.jpg",
            "conversations": [
                {"role": "user", "content": "<image>\n<image>\nSame?"},
                {"role": "assistant", "content": "No."},
            ],
        },
        ["0.jpg", "1.jpg"],
        ("<image>\n<image>\nSame?", "No."),
        (),
        "conversations of role/content; image: paths with commas; tag at start, repeated",
    ),
    "a comma in a name": (
        {"image": "Paris, France.jpg", "conversations": PAIR},
        ["Paris, France.jpg"],
        TAGGED,
        (),
        "conversations of from/value; image: path; tag at start",
    ),
    "bytes and path": (
        {
            "images": [{"bytes": BASE64, "path": None}, {"bytes": None, "path": "b.jpg"}],
            "conversation": [
                {"role": "user", "content": "<image> and <image>?"},
                {"role": "assistant", "content": "No."},
            ],
        },
        [KEPT, "b.jpg"],
        ("<image> and <image>?", "No."),
        (),
        "conversation of role/content; images: list of bytes and path in an object; tag at start, repeated",
    ),
    "messages": (
        {
            "messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}],
            "images": ["a.jpg"],
        },
        ["a.jpg"],
        ("<image>What?", "A cat."),
        (),
        "messages of role/content; images: list of path; tag at start",
    ),
    "OpenAI parts, data URL": (
        {"messages": OPENAI},
        [KEPT],
        TAGGED,
        (),
        "messages of role/content, content parts; no image; tag absent",
    ),
    "parts with sources": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "First"},
                        {"type": "image", "path": "a.jpg"},
                        {"type": "image", "url": "b.jpg"},
                        {"type": "image", "image": "c.jpg"},
                        {"type": "image_url", "image_url": "d.jpg"},
                    ],
                },
                {"role": "assistant", "content": "Yes."},
            ]
        },
        ["a.jpg", "b.jpg", "c.jpg", "d.jpg"],
        ("First\n<image>\n<image>\n<image>\n<image>", "Yes."),
        (),
        "messages of role/content, content parts; no image; tag absent",
    ),
    "parts that stand for the row's images": (
        {
            "images": ["a.jpg", "b.jpg"],
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"}]},
                {"role": "assistant", "content": "Yes."},
            ],
        },
        ["a.jpg", "b.jpg"],
        ("<image>\nand\n<image>", "Yes."),
        (),
        "messages of role/content, content parts; images: list of path; tag absent",
    ),
    "role/value": (
        {
            "image": "a.jpg",
            "messages": [{"role": "USER", "value": "<image>\nWhat?"}, {"role": "bot", "value": "A cat."}],
        },
        ["a.jpg"],
        TAGGED,
        (),
        "messages of role/value; image: path; tag at start",
    ),
    "no image key": (
        {"conversations": BARE},
        [],
        ("What?", "A cat."),
        (),
        "conversations of from/value; no image; tag absent",
    ),
    "null image": (
        {"image": None, "conversations": BARE},
        [],
        ("What?", "A cat."),
        (),
        "conversations of from/value; no image; tag absent",
    ),
    "empty image": (
        {"image": "", "conversations": BARE},
        [],
        ("What?", "A cat."),
        (),
        "conversations of from/value; no image; tag absent",
    ),
    "data URL": (
        {"image": f"data:image/png;base64,{BASE64}", "conversations": PAIR},
        [KEPT],
        TAGGED,
        (),
        "conversations of from/value; image: data URL; tag at start",
    ),
    "bare base64": (
        {"image": BASE64, "conversations": PAIR},
        [KEPT],
        TAGGED,
        (),
        "conversations of from/value; image: base64; tag at start",
    ),
    "tag at the end": (
        {"image": "a.jpg", "conversations": says("What?\n<image>", "A cat.")},
        ["a.jpg"],
        ("What?\n<image>", "A cat."),
        (),
        "conversations of from/value; image: path; tag at end",
    ),
    "tag in the middle": (
        {"image": "a.jpg", "conversations": says("What <image> is it?", "A cat.")},
        ["a.jpg"],
        ("What <image> is it?", "A cat."),
        (),
        "conversations of from/value; image: path; tag at middle",
    ),
    "tag absent": (
        {"image": "a.jpg", "conversations": BARE},
        ["a.jpg"],
        TAGGED,
        (INSERTED,),
        "conversations of from/value; image: path; tag absent",
    ),
    "tag absent, two images, a system turn": (
        {"image": ["a.jpg", "b.jpg"], "conversations": [{"from": "system", "value": "Be brief."}, *BARE]},
        ["a.jpg", "b.jpg"],
        ("Be brief.", "<image>\n<image>\nWhat?", "A cat."),
        (INSERTED,),
        "conversations of from/value; image: list of path; tag absent",
    ),
    "tag repeated in a turn": (
        {"image": "a.jpg", "conversations": says("<image>\nWhat?\n<image>", "A cat.")},
        ["a.jpg"],
        TAGGED,
        ("repeated image tag removed",),
        "conversations of from/value; image: path; tag at start, repeated",
    ),
    "tag repeated in every turn": (
        {"image": "a.jpg", "conversations": says("<image>\nWhat?", "A cat.", "<image>\nWhere?", "Here.")},
        ["a.jpg"],
        ("<image>\nWhat?", "A cat.", "Where?", "Here."),
        ("repeated image tag removed",),
        "conversations of from/value; image: path; tag at start, repeated",
    ),
    "tag in a later turn": (
        {"image": "a.jpg", "conversations": says("Hello", "Hi.", "<image>\nWhat?", "A cat.")},
        ["a.jpg"],
        ("Hello", "Hi.", "<image>\nWhat?", "A cat."),
        (),
        "conversations of from/value; image: path; tag at start of a later turn",
    ),
    "leading answers": (
        {"image": "a.jpg", "conversations": [ANSWER, ANSWER, *PAIR]},
        ["a.jpg"],
        TAGGED,
        ("leading answer dropped",),
        "conversations of from/value; image: path; tag at start of a later turn",
    ),
    "a leading answer after the system turn": (
        {"conversations": [{"from": "system", "value": "Be brief."}, ANSWER, *BARE]},
        [],
        ("Be brief.", "What?", "A cat."),
        ("leading answer dropped",),
        "conversations of from/value; no image; tag absent",
    ),
    "an odd number of turns": (
        {"image": "a.jpg", "conversations": says("<image>\nWhat?", "A cat.", "Where?")},
        ["a.jpg"],
        TAGGED,
        ("last question without an answer dropped",),
        "conversations of from/value; image: path; tag at start",
    ),
    "literal tag in a text-only row": (
        {"conversations": says("What does <image> mean in HTML?", "The <image> tag shows one.")},
        [],
        ("What does < image > mean in HTML?", "The < image > tag shows one."),
        ("literal <image> in the text escaped",),
        "conversations of from/value; no image; tag at middle, repeated",
    ),
    "literal tag in an answer": (
        {"image": "a.jpg", "conversations": says("<image>\nWhat is written?", "It says <image>.")},
        ["a.jpg"],
        ("<image>\nWhat is written?", "It says < image >."),
        ("literal <image> in the text escaped",),
        "conversations of from/value; image: path; tag at start, repeated",
    ),
    "integer id and aliases of roles": (
        {
            "id": 7,
            "conversations": [{"from": "question", "value": "What?"}, {"from": "chatgpt", "value": "A cat."}],
        },
        [],
        ("What?", "A cat."),
        (),
        "conversations of from/value; no image; tag absent",
    ),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(file: Path, rows: list[Any]) -> str:
    file.write_text(json.dumps(rows), encoding="utf-8")
    return str(file)


def one(folder: Path, row: Any, **options: Any) -> Sample | DataError:
    [found] = read_samples(write(folder / "x.json", [row]), "llava", options=options)
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_row_becomes_exactly_this_sample(tmp_path: Path, name: str) -> None:
    row, images, texts, mended, variant = ROWS[name]
    found = one(tmp_path, row)
    assert isinstance(found, Sample), found
    places = [str(tmp_path / "cache" / "lorgnette" / i if i == KEPT else tmp_path / i) for i in images]
    assert list(found.images) == places
    assert tuple(turn.text for turn in found.turns) == texts
    spoken = [turn.role for turn in found.turns if turn.role != "system"]
    assert spoken == ["user", "assistant"] * (len(spoken) // 2)
    assert found.mended == mended
    assert found.id == str(row.get("id", 0))
    check_sample(found)
    assert list(VARIANTS["llava"](SourceSpec(str(tmp_path / "x.json")))) == [variant]
    if KEPT in images:
        assert (tmp_path / "cache" / "lorgnette" / KEPT).read_bytes() == PNG


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".json.gz", ".jsonl.gz"])
def test_all_variants_in_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    rows = [row for row, *_ in ROWS.values()]
    expected = list(read_samples(write(tmp_path / "plain.json", rows), "llava"))
    text = "\n".join(json.dumps(row) for row in rows) if "jsonl" in suffix else json.dumps(rows, indent=1)
    file = tmp_path / f"x{suffix}"
    file.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else b"\xef\xbb\xbf" + text.encode())
    found = list(read_samples(str(file), "llava"))
    assert [(s.images, s.turns, s.mended) for s in found] == [(s.images, s.turns, s.mended) for s in expected]
    assert [s.origin.row for s in found] == list(range(len(rows)))
    variants = Counter(VARIANTS["llava"](SourceSpec(str(file))))
    assert variants == Counter(variant for *_, variant in ROWS.values())


def test_parquet_of_conversations_with_bytes(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    row = {
        "id": "1",
        "conversation": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}],
        "images": [{"bytes": PNG, "path": None}],
    }
    parquet.write_table(pyarrow.Table.from_pylist([row] * 3), tmp_path / "train-00000-of-00001.parquet")
    found = list(read_samples(str(tmp_path), "llava", split="train"))
    assert [s.images for s in found] == [(str(tmp_path / "cache" / "lorgnette" / KEPT),)] * 3
    assert [t.text for t in found[0].turns] == ["<image>What?", "A cat."]


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"conversations": PAIR}, None, "1 <image> tags but 0 images"),
        ({"image": None, "conversations": says("What?\n<image>", "A cat.")}, None, "1 <image> tags but 0 images"),
        ({"image": ["a.jpg"], "conversations": says("<image><image>", "A.")}, None, "2 <image> tags but 1 images"),
        ({"image": ["a.jpg", "b.jpg"], "conversations": PAIR}, None, "1 <image> tags but 2 images"),
        ({"conversations": [*BARE[:1], *BARE]}, None, "roles are user, user, assistant"),
        ({"conversations": [ANSWER]}, None, "roles are none"),
        ({"image": "a.jpg", "conversations": [*BARE, ASK]}, None, "roles are user, assistant, user"),
        ({"image": "a.jpg", "conversations": says("Draw it.", "<image>")}, None, ""),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool or function role", "roles: {tool: user}"),
        ({"messages": [{"role": "function_call", "content": "x"}]}, "tool or function role", "neither a question"),
        ({"messages": [{"role": "observation", "content": "x"}]}, "tool or function role", "neither a question"),
        ({"messages": [{"role": "asistant", "content": "x"}]}, "unknown role", "Did you mean 'assistant'?"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "kind of content part", "'video'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "tags and images differ", "none left"),
        ({"image": "https://x.org/a.jpg", "conversations": PAIR}, "image is a web address", "download it"),
        ({"image": "data:image/png;base64,@@@", "conversations": PAIR}, "image cell", "no valid base64"),
        ({"image": "data:,x", "conversations": PAIR}, "image cell", "without base64"),
        ({"image": [{"bytes": 3}], "conversations": PAIR}, "image cell", "Allowed: bytes"),
        ({"image": {"bytes": ""}, "conversations": PAIR}, "empty image", "no bytes"),
        ({"image": "a", "images": ["b"], "conversations": PAIR}, "two image cells", "options: {image: images}"),
        ({"conversations": PAIR, "messages": BARE}, "two conversations", "conversations and messages differ"),
        ({"instruction": "x", "output": "y"}, "no conversation", "format: instruct"),
        ({"id": [1], "conversations": BARE}, "id", "the id is [1]"),
    ],
)
def test_rows_with_more_than_one_meaning_are_refused(tmp_path: Path, row: Any, kind: str | None, message: str) -> None:
    found = one(tmp_path, row)
    if kind is None:
        assert isinstance(found, Sample), found
        if message:
            with pytest.raises(RowError, match=message) as caught:
                check_sample(found)
            found = caught.value
        else:
            assert "<image>" in found.turns[1].text  # rendering refuses a tag in an answer
            return
    assert isinstance(found, RowError)
    assert kind is None or found.kind == kind
    assert message in str(found)
    assert str(found).startswith(f"{tmp_path / 'x.json'}, row 0")


def texts(found: Sample | DataError) -> list[str]:
    assert isinstance(found, Sample), found
    return [turn.text for turn in found.turns]


def test_options_override_what_is_seen(tmp_path: Path) -> None:
    row = {
        "conversations": says("no", "no"),
        "chat": [{"who": "Frage", "what": "What?"}, {"who": "tool", "what": "A cat."}],
        "picture": "a.jpg",
    }
    found = one(
        tmp_path,
        row,
        conversations="chat",
        role="who",
        text="what",
        image="picture",
        roles={"Frage": "user", "tool": "assistant"},
    )
    assert texts(found) == ["<image>\nWhat?", "A cat."]
    both = {"image": "a.jpg", "images": ["b.jpg"], "conversations": PAIR, "messages": BARE}
    chosen = one(tmp_path, both, image="images", conversations="messages")
    assert isinstance(chosen, Sample)
    assert (chosen.images, chosen.mended) == ((str(tmp_path / "b.jpg"),), (INSERTED,))


def test_options_choose_what_happens_to_tags(tmp_path: Path) -> None:
    repeated, literal = ROWS["tag repeated in a turn"][0], ROWS["literal tag in a text-only row"][0]
    assert texts(one(tmp_path, repeated, repeated_tags="refuse")) == ["<image>\nWhat?\n<image>", "A cat."]
    assert texts(one(tmp_path, literal, literal_tags="refuse"))[0] == "What does <image> mean in HTML?"
    removed = one(tmp_path, literal, literal_tags="remove")
    assert texts(removed) == ["What does  mean in HTML?", "The  tag shows one."]
    assert isinstance(removed, Sample)
    assert removed.mended == ("literal <image> in the text removed",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"leav_out": []}, r"there is no option 'leav_out'. Did you mean 'leave_out'\?"),
        ({"zzz": 1}, "Allowed: outside_images, config, conversations"),
        ({"roles": {"a": "b"}}, "roles.a: Input should be 'system', 'user' or 'assistant', got 'b'"),
        ({"outside_images": "yes", "image": 3}, "outside_images: .* image: "),
    ],
)
def test_wrong_options_are_explained(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        one(tmp_path, ROWS["LLaVA"][0], **options)
    with pytest.raises(DataError, match="has no options"):
        list(read_samples("easy-vqa", "easy-vqa", "train", options=options))


def test_rs_instructions_leave_out_strays_and_what_is_not_public(tmp_path: Path) -> None:
    names = [
        "NWPU/NWPU_images/airport/airport_1.jpg",
        "UAV/Train/1.jpg",
        "UCM/1.jpg",
        "UAVs/1.jpg",
        "ocr_vqa/images/1.jpg",
    ]
    file = write(tmp_path / "x.json", [{"image": name, "conversations": PAIR} for name in names])
    found = list(read_samples(file, "rs-instructions"))
    assert [isinstance(each, Sample) for each in found] == [True, False, True, True, False]
    assert [each.kind for each in found if isinstance(each, LeftOut)] == ["left out: UAV", "left out: ocr_vqa"]
    kept = list(read_samples(file, "rs-instructions", options={"leave_out": ["UCM"]}))
    assert [isinstance(each, LeftOut) for each in kept] == [False, False, True, False, False]
    limited = list(read_samples(file, "rs-instructions", limit=2))
    assert [isinstance(each, Sample) for each in limited] == [True, False, True]
    assert len(list(VARIANTS["rs-instructions"](SourceSpec(file)))) == 5
