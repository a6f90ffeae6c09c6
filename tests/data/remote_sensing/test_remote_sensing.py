"""The remote-sensing corpus: which rows are kept, where images come from and go, what is said about the rest."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from archive_bytes import cut, tar_bytes, tree, zip_bytes
from lorgnette.cli import app
from lorgnette.data.readers import read_samples
from lorgnette.data.remote_sensing import placing as remote_sensing_placing
from lorgnette.data.remote_sensing.corpus import CORPUS, Prepared, prepare
from lorgnette.data.remote_sensing.matching import Candidate, match
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError


def picture(number: int, kind: str = "PNG", size: int = 8) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def smooth(kind: str) -> bytes:
    ramp = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, kind)
    return buffer.getvalue()


def row(image: object, **more: object) -> dict:
    turns = [{"from": "human", "value": "<image>\n¿Qué hay?"}, {"from": "gpt", "value": "Un aeropuerto."}]
    return {"id": f"row of {image}", "image": image, "conversations": turns, **more}


ROWS = [
    row("NWPU/NWPU_images/airport/airport_001.jpg"),
    row("NWPU/NWPU_images/airport/airport_001.jpg", id="again"),
    row("RSICD/images/airport_1.jpg"),
    row("LR/Train/1.jpg"),
    row("LR/Train/2.png"),
    row("DOTA/images/P0001.png"),
    row("UAV/Train/1.jpg"),
    row("UCM/1.tif"),
    row("ocr_vqa/images/1.jpg"),
    row("ocr_vqa/images/2.jpg"),
    row("../NWPU/NWPU_images/a.jpg"),
    row("/etc/passwd.jpg"),
    row("DOTA/labels/P0001.txt"),
    row("coco/1.jpg"),
    row(None),
    {"image": "LR/Train/1.jpg"},
    "text",
]
NWPU = zip_bytes({"NWPU-RESISC45/airport/airport_001.jpg": picture(1, "JPEG"), "NWPU-RESISC45/readme.txt": b"x"})
RSICD = tar_bytes({"somewhere/RSICD_images/airport_1.jpg": picture(2, "JPEG")})
LR = zip_bytes({"Images_LR/1.tif": smooth("TIFF"), "Images_LR/2.tif": picture(4, "TIFF")})
UCM = zip_bytes({"UCMerced_LandUse/1.tif": picture(9, "TIFF")})


def source_in(folder: Path, rows: object = ROWS) -> Path:
    folder.mkdir(parents=True)
    (folder / CORPUS[0]).write_text(json.dumps(rows, ensure_ascii=False))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Everything in its wild form: a zip, a tar in parts, a nested zip, a loose file, and a set that nobody wants."""
    folder = source_in(tmp_path / "source")
    (folder / "NWPU.zip").write_bytes(NWPU)
    for name, content in cut(RSICD, ["pictures.tar.001", "pictures.tar.002"]).items():
        (folder / name).write_bytes(content)
    (folder / "lr.zip").write_bytes(zip_bytes({"wrong top/Images_LR.zip": LR}))
    (folder / "ucm.zip").write_bytes(UCM)
    (folder / "DOTA" / "part1").mkdir(parents=True)
    (folder / "DOTA" / "part1" / "P0001.png").write_bytes(picture(5))
    return folder


def run(source: Path, out: Path, **options: object) -> Prepared:
    return prepare(source, out, Console(quiet=True), **options)


def test_the_whole_corpus_is_laid_out_and_every_row_is_accounted_for(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(source, out)
    done.check()
    assert sorted(tree(out / "imagenes")) == [
        "DOTA/images/P0001.png",
        "LR/Train/1.jpg",
        "LR/Train/2.png",
        "NWPU/NWPU_images/airport/airport_001.jpg",
        "RSICD/images/airport_1.jpg",
    ]
    assert (out / "imagenes/DOTA/images/P0001.png").read_bytes() == picture(5)
    assert (source / "DOTA/part1/P0001.png").exists()
    rows = json.loads((out / "dataset.json").read_text())
    assert rows == ROWS[:6]
    assert done.selection.dropped == {
        "set not kept: UAV": 1,
        "set not kept: UCM": 1,
        "stray ocr_vqa row": 2,
        "the image path leaves its folder": 2,
        "no image file in DOTA/images": 1,
        "an unknown set": 1,
        "no image named": 1,
        "no conversation": 2,
    }
    assert done.selection.read == len(ROWS) == done.rows + sum(done.selection.dropped.values())
    assert done.to_fetch() == []
    assert not (out / "unpacked").exists()
    report = json.loads((out / "prepared.json").read_text())
    assert report["rows"] == {"read": 17, "kept": 6, "dropped": dict(done.selection.dropped)}
    assert report["images"]["LR"] == {
        "named": 2,
        "in place": 2,
        "converted now": 2,
        "broken": 0,
        "ambiguous": 0,
        "missing": 0,
    }


def test_what_was_prepared_can_be_read_and_looked_at(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    samples = list(
        read_samples(str(tmp_path / "out" / "dataset.json"), "llava", images=str(tmp_path / "out" / "imagenes"))
    )
    assert len(samples) == 6
    assert all(isinstance(sample, Sample) and Path(sample.images[0]).is_file() for sample in samples)


def test_tiffs_are_converted_as_the_corpus_names_them(source: Path, tmp_path: Path) -> None:
    done = run(source, tmp_path / "out")
    assert done.images.converted == {"LR/Train/1.jpg": "tif", "LR/Train/2.png": "tif"}
    original = np.asarray(Image.open(io.BytesIO(picture(4))))
    with Image.open(tmp_path / "out/imagenes/LR/Train/2.png") as png:
        assert png.format == "PNG"
        assert (np.asarray(png) == original).all()
    with Image.open(tmp_path / "out/imagenes/LR/Train/1.jpg") as jpg:
        assert jpg.format == "JPEG"
        error = np.asarray(jpg).astype(int) - np.asarray(Image.open(io.BytesIO(smooth("PNG")))).astype(int)
        assert abs(error).max() <= 4


def test_which_sets_are_kept_is_an_option(source: Path, tmp_path: Path) -> None:
    done = run(source, tmp_path / "out", keep=["UCM"])
    assert [row["image"] for row in json.loads((tmp_path / "out/dataset.json").read_text())] == ["UCM/1.tif"]
    assert (tmp_path / "out/imagenes/UCM/1.tif").read_bytes() == picture(9, "TIFF")
    assert done.selection.dropped["set not kept: NWPU"] == 2
    assert run(source, tmp_path / "out", keep=["UAV"]).rows == 0
    assert len(json.loads((tmp_path / "out/dataset.json").read_text())) == 1  # what was there is not lost
    with pytest.raises(DataError, match="Did you mean 'DOTA'") as error:
        run(source, tmp_path / "out", keep=["LR", "dotta"])
    assert "NWPU, RSICD, LR, DOTA, UAV, UCM" in str(error.value)
    with pytest.raises(DataError, match="Allowed: NWPU"):
        run(source, tmp_path / "out", keep=[])


def test_missing_sets_are_listed_and_the_next_call_does_what_is_left(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    late = (source / "lr.zip").read_bytes()
    (source / "lr.zip").unlink()
    done = run(source, out)
    done.check()
    assert done.rows == 4
    assert done.selection.dropped["image missing"] == 2
    (line,) = done.to_fetch()
    assert line.startswith("LR: 2 of 2 images are missing. Get Images_LR.zip of https://zenodo.org/records/6344334")
    assert line.endswith(f"into {source / 'LR'}")

    unpacked, decoded = [], []
    monkeypatch.setattr(
        remote_sensing_placing,
        "unpack",
        lambda archive, *rest: (unpacked.append(archive.name), unpack(archive, *rest))[1],
    )
    monkeypatch.setattr(
        remote_sensing_placing, "open_image", lambda file: (decoded.append(Path(file).name), open_image(file))[1]
    )
    from lorgnette.data.archives.unpacking import unpack
    from lorgnette.images.opening import open_image

    (source / "LR").mkdir()
    (source / "LR" / "late.zip").write_bytes(late)
    assert run(source, out).rows == 6
    assert unpacked == ["late.zip"]
    assert decoded == []
    unpacked.clear()
    assert run(source, out).rows == 6
    assert (unpacked, decoded) == ([], [])
    (out / "imagenes/RSICD/images/airport_1.jpg").unlink()
    (out / "imagenes/DOTA/images/P0001.png").write_bytes(picture(5)[:60])  # cut by a crash: decoded again, replaced
    assert run(source, out).rows == 6
    assert sorted(unpacked) == ["NWPU.zip", "late.zip", "pictures.tar", "ucm.zip"]
    assert decoded == ["P0001.png"]
    assert (out / "imagenes/DOTA/images/P0001.png").read_bytes() == picture(5)


def test_a_kill_while_unpacking_keeps_what_was_unpacked(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lorgnette.data.archives.unpacking import unpack

    asked = []

    def killed(archive, *rest):
        asked.append(archive.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return unpack(archive, *rest)

    monkeypatch.setattr(remote_sensing_placing, "unpack", killed)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert run(source, tmp_path / "out").rows == 6
    assert len(asked) == len(set(asked)) + 1


def test_broken_images_are_named_and_their_rows_dropped(source: Path, tmp_path: Path) -> None:
    (source / "NWPU.zip").write_bytes(zip_bytes({"NWPU/airport/airport_001.jpg": picture(1, "JPEG", 64)[:900]}))
    done = run(source, tmp_path / "out")
    assert done.rows == 4
    assert done.selection.dropped["image broken"] == 2
    assert "cannot be decoded" in done.images.broken["NWPU/NWPU_images/airport/airport_001.jpg"]
    assert not (tmp_path / "out/imagenes/NWPU/NWPU_images/airport/airport_001.jpg").exists()
    (source / "NWPU.zip").write_bytes(NWPU)
    assert run(source, tmp_path / "out").rows == 6


def test_hostile_archives_are_refused_and_the_rest_is_still_done(source: Path, tmp_path: Path) -> None:
    (source / "NWPU.zip").write_bytes(zip_bytes({"NWPU/airport/airport_001.jpg": b"", "../../evil.jpg": b"x"}))
    done = run(source, tmp_path / "out")
    assert done.rows == 4
    assert "NWPU.zip: entry '../../evil.jpg'" in done.refused[0]
    with pytest.raises(DataError, match="1 of the archives cannot be used"):
        done.check()
    assert not list(tmp_path.rglob("evil.jpg"))
    assert (tmp_path / "out" / "dataset.json").exists()


def test_archives_that_nobody_needs_are_left_alone(source: Path, tmp_path: Path) -> None:
    for name in ("pictures.tar.001", "lr.zip"):
        (source / name).unlink()
    done = run(source, tmp_path / "out")
    assert "of its 2 or more parts number 1 is missing" in done.refused[0]
    done = run(source, tmp_path / "out", keep=["NWPU", "DOTA"])
    assert (done.rows, done.refused) == (3, [])


def test_links_in_the_source_are_not_followed(tmp_path: Path) -> None:
    source = source_in(tmp_path / "source", [row("DOTA/images/P0001.png")])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "P0001.png").write_bytes(picture(5))
    (source / "DOTA").symlink_to(tmp_path / "outside")
    done = run(source, tmp_path / "out")
    assert done.rows == 0
    with pytest.raises(DataError, match=r"no row can be used\. Next: DOTA: 1 of 1 images are missing"):
        done.check()
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["missing"] == ["DOTA/images/P0001.png"]


def label(path: str, folder: Path, content: bytes = b"") -> Candidate:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Candidate(file, PurePosixPath(path), ours=False)


@pytest.mark.parametrize(
    ("wanted", "path", "fits"),
    [
        ("LR/Train/1.png", "Images_LR.zip/1.tif", True),
        ("LR/Train/1.png", "RSVQA_LR/Images/1.TIF", True),
        ("LR/Train/1.png", "UCMerced_LandUse/1.tif", False),
        ("LR/Train/1.png", "UAV/Train/1.png", False),
        ("LR/Train/1.png", "Train/1.png", False),  # every set has a folder Train
        ("LR/Train/1.png", "1.png", False),
        ("LR/Train/1.png", "NWPU-RSICD-UAV-UCM-LR-DOTA/LR/Train/1.png", True),
        ("LR/Train/1.png", "NWPU-RSICD-UAV-UCM-LR-DOTA/UCM/1.png", False),
        ("NWPU/NWPU_images/airport/airport_001.jpg", "x/airport/airport_001.JPEG", True),
        ("NWPU/NWPU_images/airport/airport_001.jpg", "airport_001.jpg", False),
        ("NWPU/NWPU_images/airport/airport_001.jpg", "RSICD/airport/airport_001.jpg", False),
        ("RSICD/images/airport_1.jpg", "RSICD_images/airport_1.jpg", True),
        ("RSICD/images/airport_1.jpg", "RSICD_images/airport_10.jpg", False),
        ("DOTA/images/P0001.png", "DOTA-v1.0/train/part1.zip/images/P0001.png", True),
    ],
)
def test_a_file_is_taken_only_if_its_path_says_the_set(tmp_path: Path, wanted: str, path: str, fits: bool) -> None:
    found, ambiguous = match([wanted], [label(path, tmp_path)])
    assert bool(found) == fits
    assert not ambiguous


def test_the_best_of_several_files_is_taken_and_two_that_differ_are_ambiguous(tmp_path: Path) -> None:
    wanted = "LR/Train/1.png"
    tif, png, jpg = (label(f"LR/1.{kind}", tmp_path, kind.encode()) for kind in ("tif", "png", "jpg"))
    assert match([wanted], [jpg, tif, png])[0] == {wanted: png}
    assert match([wanted], [jpg, tif])[0] == {wanted: tif}
    near = label("x/LR/Train/1.jpg", tmp_path, b"near")
    assert match([wanted], [near, png])[0] == {wanted: near}
    twin = label("copy/LR/1.png", tmp_path, b"png")
    assert match([wanted], [png, twin])[0] == {wanted: png}
    other = label("other/LR/1.png", tmp_path, b"another")
    assert match([wanted], [png, other]) == ({}, {wanted: (png, other)})


def test_ambiguous_images_are_counted_and_resolved_by_removing_one(source: Path, tmp_path: Path) -> None:
    other = source / "DOTA" / "part2" / "P0001.png"
    other.parent.mkdir()
    other.write_bytes(picture(6))
    done = run(source, tmp_path / "out")
    assert done.selection.dropped["several different images fit"] == 1
    assert done.images.ambiguous == {"DOTA/images/P0001.png": ("DOTA/part1/P0001.png", "DOTA/part2/P0001.png")}
    other.unlink()
    assert run(source, tmp_path / "out").rows == 6


def test_archives_that_python_cannot_unpack_are_named(source: Path, tmp_path: Path) -> None:
    (source / "NWPU.zip").rename(source / "NWPU-RESISC45.rar")
    assert run(source, tmp_path / "out").by_hand == ["NWPU-RESISC45.rar"]


def test_mistakes_about_the_source_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        run(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the corpus is not in it") as error:
        run(tmp_path / "empty", tmp_path / "out")
    assert "--url https://huggingface.co/datasets/BigData-KSU/RS-instructions-dataset/resolve/main" in str(error.value)
    for number, (content, says) in enumerate([("{", "cannot be read as JSON"), ("{}", "a JSON dict"), ("", "JSON")]):
        source = tmp_path / str(number)
        source.mkdir()
        (source / CORPUS[0]).write_text(content)
        with pytest.raises(DataError, match=says):
            run(source, tmp_path / "out")
    (source / "other").mkdir()
    (source / "other" / CORPUS[1]).write_text("[]")
    with pytest.raises(DataError, match="differ"):
        run(source, tmp_path / "out")


def test_the_command_downloads_prepares_and_says_what_is_next(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "DOTA.zip").write_bytes(zip_bytes({"images/P0001.png": picture(5)}))
    (tmp_path / "site" / CORPUS[0]).write_text(json.dumps([row("DOTA/images/P0001.png"), row("LR/Train/1.png")]))
    (tmp_path / "source").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        digest = hashlib.sha256((tmp_path / "site" / "DOTA.zip").read_bytes()).hexdigest()
        site = f"http://127.0.0.1:{server.server_port}"
        urls = ["--url", f"{site}/{CORPUS[0]}", "--url", f"{site}/DOTA.zip#sha256={digest}"]
        command = ["data", "prepare", "rs-instructions", str(tmp_path / "source"), str(tmp_path / "out"), *urls]
        done = CliRunner().invoke(app, command)
        server.shutdown()
        thread.join()
    assert done.exit_code == 0, done.output
    assert "still to fetch: LR: 1 of 1 images are missing" in done.output
    assert "1 image missing (the first: LR/Train/1.png (id row of LR/Train/1.png))" in done.output
    assert f"format: llava, images: {tmp_path / 'out' / 'imagenes'}" in done.output
    assert len(json.loads((tmp_path / "out" / "dataset.json").read_text())) == 1
    again = CliRunner().invoke(app, ["data", "prepare", "rs-instruction", "x", str(tmp_path / "out")])
    assert isinstance(again.exception, DataError)
    assert "Did you mean 'rs-instructions'?" in str(again.exception)
