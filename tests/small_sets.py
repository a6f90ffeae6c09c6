"""Small data sets in the layouts of the real ones, written by the tests themselves."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image
from pyarrow import parquet


def picture(shade: int, kind: str = "PNG") -> bytes:
    """A picture of 2 x 2 pixels; another one for every shade."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def write_parquet(file: Path, rows: Sequence[Mapping[str, Any]], row_group_size: int = 3) -> str:
    """Columns are those of the first row."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist([dict(row) for row in rows])
    parquet.write_table(table, file, row_group_size=row_group_size)
    return str(file)


def image_rows(*names: str) -> list[dict[str, Any]]:
    """Rows of a GQA config of images: a struct of bytes and path."""
    return [{"id": name, "image": {"bytes": picture(n), "path": f"{name}.png"}} for n, name in enumerate(names)]


def gqa_row(number: str, image_id: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A row of `<split>_balanced_instructions` with all its columns."""
    return {
        "id": number,
        "imageId": image_id,
        "question": question,
        "answer": answer,
        "fullAnswer": f"Это {answer}.",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-person_in"},
        "entailed": "",
        "equivalent": number,
        "types": {"structural": "query", "semantic": "rel", "detailed": "relS"},
        "annotations": {"question": [{"objectId": "0", "value": "681267"}], "answer": [], "fullAnswer": []},
        "semantic": [{"operation": "select", "argument": "person (0)", "dependencies": []}],
        "semanticStr": "select: person (0)",
    } | more


def write_gqa(folder: Path, questions: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]]) -> str:
    """Two shards of instructions, one of images, laid out as on the hub."""
    half = (len(questions) + 1) // 2
    for number, part in enumerate((questions[:half], questions[half:])):
        write_parquet(folder / "testdev_balanced_instructions" / f"testdev-0000{number}-of-00002.parquet", part)
    write_parquet(folder / "testdev_balanced_images" / "testdev-00000-of-00001.parquet", images)
    return str(folder)


GQA_QUESTIONS = [
    gqa_row("201307251", "n161313", "Что слева от дивана?", "лампа"),
    gqa_row("201640614", "n235859", "Это кошка?", "да", fullAnswer=None, groups={"global": "animal", "local": "x"}),
    gqa_row("202225914", "n161313", "Какого цвета лампа?", "светло-серый", types=None),
]
GQA_IMAGES = image_rows("n161313", "n235859")


GQA_ORIGINAL = {
    "02930152": {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (2486325)"}],
        "entailed": ["02930160"],
        "equivalent": ["02930152"],
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": "yes",
        "semanticStr": "select: sky (2486325)",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
    },
    "07333408": {"question": "What is on the wall?", "imageId": "2375429", "answer": "pipe"},
}


def mmbench_row(index: int, answer: str, options: Sequence[Any], image: Any, **more: Any) -> dict[str, Any]:
    return {
        "index": index,
        "question": "Кто на картинке?",
        "hint": "nan",
        **dict(zip("ABCD", options, strict=True)),
        "answer": answer,
        "category": "object_localization",
        "image": image,
        "source": "reasoning",
        "l2-category": "finegrained_perception",
        "comment": "nan",
        "split": "dev",
    } | more


def struct(shade: int) -> dict[str, Any]:
    return {"bytes": picture(shade), "path": None}


def write_tsv(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """As pandas writes the official files: quoted where needed, nothing for what is missing."""
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return str(file)


def encoded(shade: int) -> str:
    return base64.b64encode(picture(shade)).decode()


def official_row(index: int, image: str, **more: Any) -> dict[str, Any]:
    """A row of the official TSV: the options turned by what is before the last six digits of the index."""
    turned = index // 1_000_000
    options = [*"wxyz"[turned:], *"wxyz"[:turned]]
    made = mmbench_row(index, "ADCB"[turned], options, image, hint="", comment="")
    return {name.replace("l2-", "L2-"): cell for name, cell in made.items()} | more


COCO = {
    "info": {"description": "COCO 2014 Dataset"},
    "licenses": [],
    "images": [
        {"license": 5, "file_name": "COCO_val2014_000000391895.jpg", "height": 360, "width": 640, "id": 391895},
        {"license": 4, "file_name": "COCO_val2014_000000522418.jpg", "height": 480, "width": 640, "id": 522418},
    ],
    "annotations": [
        {"image_id": 522418, "id": 37, "caption": "A woman cuts a cake. "},
        {"image_id": 391895, "id": 770337, "caption": "A man on a motor bike."},
        {"image_id": 391895, "id": 771687, "caption": "Мужчина на мотоцикле."},
    ],
}
RSICD = {
    "dataset": "rsicd",
    "images": [
        {
            "filename": "airport_1.jpg",
            "imgid": 0,
            "split": "train",
            "sentences": [
                {"raw": "many planes are parked .", "tokens": ["many", "planes"], "imgid": 0, "sentid": 0},
                {"raw": "many planes are parked .", "tokens": ["many", "planes"], "imgid": 0, "sentid": 1},
            ],
            "sentids": [0, 1],
        },
        {
            "filename": "church_10.jpg",
            "imgid": 1,
            "split": "test",
            "sentences": [{"raw": "a grey church .", "tokens": ["a"], "imgid": 1, "sentid": 2}],
            "sentids": [2],
        },
    ],
}
NWPU = {
    "airplane": [
        {
            "filename": "airplane_001.jpg",
            "imgid": 0,
            "split": "train",
            "raw": "c0",
            "raw_1": "c1",
            "raw_2": "c2",
            "raw_3": "c3",
            "raw_4": "c4",
            "sentids": 0,
            "sentids_1": 1,
        }
    ],
    "bridge": [{"filename": "bridge_001.jpg", "imgid": 700, "split": "val", "raw": "d0", "raw_1": "d1"}],
}
CHAT = [
    {
        "id": "GCC_train_002582585",
        "image": "GCC_train_002582585.jpg",
        "conversations": [
            {"from": "human", "value": "Provide a brief description of the given image.\n<image>"},
            {"from": "gpt", "value": "olive oil is a healthy ingredient used liberally."},
        ],
    }
]


RSVQA_QUESTIONS = [
    {"id": 0, "active": False},
    {
        "id": 26,
        "date_added": 1551108321.2,
        "img_id": 1,
        "people_id": 0,
        "type": "rural_urban",
        "question": "Is it a rural or an urban area",
        "answers_ids": [26],
        "active": True,
    },
    {"id": 27, "img_id": 1, "type": "count", "question": "How many roads?", "answers_ids": [27], "active": True},
    {"id": 28, "img_id": 2, "type": "presence", "question": "Is a road there?", "answers_ids": [28], "active": True},
    {"id": 29, "img_id": 2, "type": "presence", "question": "Is a farm there?", "answers_ids": [29], "active": True},
    {"id": 30, "active": False},
]
RSVQA_ANSWERS = [
    {"id": 0, "active": False},
    {"id": 26, "date_added": 1551108321.2, "question_id": 26, "people_id": 0, "answer": "rural", "active": True},
    {"id": 27, "question_id": 27, "answer": "12", "active": True},
    {"id": 28, "question_id": 28, "answer": "yes", "active": True},
    {"id": 29, "active": False},
]


def write_rsvqa(folder: Path, name: str = "LR") -> str:
    for split in ("train", "val"):
        for kind, rows in (("questions", RSVQA_QUESTIONS), ("answers", RSVQA_ANSWERS)):
            (folder / f"{name}_split_{split}_{kind}.json").write_text(json.dumps({kind: rows}))
    return str(folder)


def write_vqa_v2(folder: Path) -> str:
    questions = [
        {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000},
        {"image_id": 458752, "question": "Is it a net?", "question_id": 458752001},
        {"image_id": 262146, "question": "What color?", "question_id": 262146000},
    ]
    annotations = [
        {
            "question_type": "what is this",
            "multiple_choice_answer": "net",
            "answers": [
                {"answer": "net" if number else "netting", "answer_confidence": "yes", "answer_id": number + 1}
                for number in range(10)
            ],
            "image_id": 458752,
            "answer_type": "other",
            "question_id": 458752000,
        },
        {
            "question_type": "is it",
            "multiple_choice_answer": "yes",
            "answers": [{"answer": "yes", "answer_confidence": "yes", "answer_id": 1}],
            "image_id": 458752,
            "answer_type": "yes/no",
            "question_id": 458752001,
        },
    ]
    for name, content in (
        ("v2_OpenEnded_mscoco_val2014_questions.json", {"data_subtype": "val2014", "questions": questions}),
        ("v2_mscoco_val2014_annotations.json", {"data_subtype": "val2014", "annotations": annotations}),
    ):
        (folder / name).write_text(json.dumps(content))
    return str(folder)


VQA_ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "Что это?", "answer": "кот", "image": "1.jpg", "type": "object"},
    {"id": "b", "question": "Сколько?", "answer": "2", "image": "2.jpg", "type": "count"},
]
