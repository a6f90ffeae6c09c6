"""Weight files: lazily, strictly, and without running anything that a pickle asks for."""

from __future__ import annotations

import json
import os
import pickle
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lorgnette.errors import ModelError
from lorgnette.models.conversion.convert import Options, convert
from lorgnette.models.conversion.names import rename, split
from lorgnette.models.conversion.projector import read_projector
from lorgnette.models.conversion.weights import (
    LazyTensor,
    read_file,
    read_folder,
    read_pickle,
    write_weights,
)


class Bomb:
    """A pickle that would create a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_asks_for_more_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    content = {"model.mm_projector.0.weight": torch.zeros(2, 2), "x": Bomb(tmp_path / "ran")}
    torch.save(content, tmp_path / "mm_projector.bin", _use_new_zipfile_serialization=zipped)
    for read in (read_pickle, read_projector, lambda path: convert(str(path), "hf", tmp_path / "out", Options())):
        with pytest.raises(ModelError, match=r"this pickle wants to run .*mkdir.*refused"):
            read(tmp_path / "mm_projector.bin")
    assert not (tmp_path / "ran").exists()
    with (tmp_path / "plain.bin").open("wb") as stream:
        pickle.dump(Bomb(tmp_path / "ran"), stream)
    with pytest.raises(ModelError, match=r"plain\.bin"):
        read_pickle(tmp_path / "plain.bin")
    assert not (tmp_path / "ran").exists()


def test_only_what_a_training_log_is_made_of_is_passed_over(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "when": time.gmtime()}, tmp_path / "x.bin")
    with pytest.raises(ModelError, match=r"time\.struct_time"):
        read_pickle(tmp_path / "x.bin")


def test_things_that_are_no_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(ModelError, match="Git LFS"):
        read_file(tmp_path / "a")
    (tmp_path / "b").write_text("hello")
    with pytest.raises(ModelError, match="neither safetensors"):
        read_file(tmp_path / "b")
    torch.save({"a": torch.zeros(2), "b": 3}, tmp_path / "c")
    with pytest.raises(ModelError, match="'b' is no tensor"):
        read_file(tmp_path / "c")
    torch.save([1, 2], tmp_path / "d")
    with pytest.raises(ModelError, match="not named tensors"):
        read_file(tmp_path / "d")
    (tmp_path / "e").write_bytes(b"")
    with pytest.raises(ModelError, match="neither safetensors"):
        read_file(tmp_path / "e")
    save_file({"hello": torch.zeros(1)}, tmp_path / "f")
    with pytest.raises(ModelError, match=r"holds hello\. Allowed as a single file"):
        convert(str(tmp_path / "f"), "hf", tmp_path / "out", Options())
    with pytest.raises(ModelError, match=r"there is no config\.json; the folder holds a, b"):
        convert(str(tmp_path), "hf", tmp_path / "out", Options())


def test_shards_come_back_and_must_be_what_the_index_says(tmp_path: Path) -> None:
    tensors = {f"t{n}": torch.randn(10, 10) for n in range(5)}
    write_weights({name: LazyTensor.of(t) for name, t in tensors.items()}, tmp_path, max_shard_bytes=900)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    found = read_folder(tmp_path)
    assert all(torch.equal(found[name].read(), value) for name, value in tensors.items())
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    assert content["metadata"]["total_size"] == 2000
    for change, says in (
        ({"t9": "model-00001-of-00003.safetensors"}, "missing: t9"),
        ({"t0": None}, "surplus: t0"),
        ({"t0": "../t.safetensors"}, "files of this folder"),
        ({"t0": "model-00009.safetensors"}, "no such file"),
    ):
        places = {name: file for name, file in (content["weight_map"] | change).items() if file}
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(ModelError, match=says):
            read_folder(tmp_path)


def test_tensors_are_read_only_when_they_are_written(tmp_path: Path) -> None:
    reads: list[str] = []

    def lazy(name: str) -> LazyTensor:
        return LazyTensor((4,), torch.float32, lambda: reads.append(name) or torch.ones(4))

    derived = {name: lazy(name).then(lambda t: t * 2).to(torch.float16) for name in ("a", "b")}
    assert not reads
    assert derived["a"].nbytes == 8
    write_weights(derived, tmp_path)
    assert reads == ["a", "b"]
    assert torch.equal(read_folder(tmp_path)["b"].read(), torch.full((4,), 2, dtype=torch.float16))


def test_key_maps_account_for_every_tensor() -> None:
    one = LazyTensor.of(torch.zeros(1))
    table = {"model.layers.{n}.wo.": "layers.{n}.o_proj.", "output.": "lm_head."}
    assert list(rename({"model.layers.12.wo.weight": one, "output.weight": one}, table, "x")) == [
        "layers.12.o_proj.weight",
        "lm_head.weight",
    ]
    with pytest.raises(ModelError, match=r"model\.layers\.x\.wo\.weight belong to no part"):
        rename({"model.layers.x.wo.weight": one}, table, "x")
    places = {"a.": ("p", ""), "b.": ("p", "")}
    with pytest.raises(ModelError, match=r"b\.w stand there twice"):
        split({"a.w": one, "b.w": one}, places, "x")
    with pytest.raises(ModelError, match=r"c\.w belong to no part"):
        split({"a.w": one, "c.w": one}, places, "x")
