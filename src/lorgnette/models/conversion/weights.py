"""Tensors of model files: read one at a time and safely, written in shards.

Knows files, not models. A pickle is opened with `weights_only=True` and never in another way: it can hold tensors,
numbers, strings and containers of them, and nothing in it is executed.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lorgnette.errors import ModelError, first_line
from lorgnette.run import write_json

STEMS = ("model", "pytorch_model", "adapter_model")
"""Names of weight files in model folders, without their suffix."""
TRAINING_LOG = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)
"""What mmengine's training log inside a `.pth` is made of. `Unread` takes their place, so they do nothing."""


class Unread:
    """Stands where a pickle names a class of a training log: takes any arguments, keeps nothing, does nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that is read when it is needed; its shape and dtype are known before."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> LazyTensor:
        """Wrap a tensor that is there already (or is mapped from a file)."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def then(
        self, function: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...] | None = None
    ) -> LazyTensor:
        """Apply a function when the tensor is read; `shape` is that of its result, None if it stays."""
        return replace(self, shape=self.shape if shape is None else shape, read=lambda: function(self.read()))

    def to(self, dtype: torch.dtype | None) -> LazyTensor:
        """Convert when the tensor is read; None leaves it."""
        if dtype is None or dtype == self.dtype:
            return self
        return replace(self, dtype=dtype, read=lambda: self.read().to(dtype))

    @property
    def nbytes(self) -> int:
        """Return its size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


Tensors = dict[str, LazyTensor]


def is_safetensors(file: Path) -> bool | None:
    """Tell by a file's first bytes: True for safetensors, False for a pickle of torch, None for something else."""
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return False
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        return True
    return None


def read_pickle(file: Path) -> Any:
    """Read a file of `torch.save`, tensors, numbers, strings and containers only; tensors stay on the disk.

    Raises:
        ModelError: if the pickle asks for anything else, or is truncated.
    """
    with file.open("rb") as stream:
        zipped = stream.read(2) == b"PK"
    try:
        with torch.serialization.safe_globals([(Unread, name) for name in TRAINING_LOG]):
            # only the zipped form, written since torch 1.6, can be mapped; the older one is read as a whole
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{file}: {wants_more(error)}") from error
    except Exception as error:  # a spoiled archive fails in many ways
        raise ModelError(
            f"{file}: cannot be read as weights of torch ({first_line(error)}). Next: copy the file anew; it is "
            "truncated or damaged."
        ) from error


def wants_more(error: Exception) -> str:
    """Say what a pickle asked for, from the error with which torch refused it."""
    asked = re.search(r"GLOBAL (\S+)|function (<.*?>)|(?:got|instantiate) (<.*?>)", str(error))
    what = next(filter(None, asked.groups()), "code") if asked else "code"
    return (
        f"this pickle wants to run {what}. Weights are tensors only; a pickle that runs code when it is opened could "
        "do anything to this machine, so it is refused. Next: get the file as safetensors, or, on a machine where you "
        "trust it, load it with the program that wrote it and save its tensors alone."
    )


def read_file(file: Path) -> Tensors:
    """Read the names, shapes and dtypes of a weight file, safetensors or pickle by its content.

    Raises:
        ModelError: if it is neither, damaged, or holds something other than named tensors.
    """
    if not file.is_file():
        raise ModelError(f"{file}: there is no such file. Next: check the path.")
    safe = is_safetensors(file)
    if safe is None:
        with file.open("rb") as stream:
            pointer = stream.read(20).startswith(b"version https://git")
        what = "a pointer of Git LFS, not the weights (git lfs pull)" if pointer else "neither safetensors nor torch's"
        raise ModelError(f"{file}: the file is {what}. Next: get the file anew.")
    return _read_safetensors(file) if safe else named_tensors(read_pickle(file), str(file))


def named_tensors(content: Any, where: str) -> Tensors:
    """Check that a value read from a pickle is a mapping of names to tensors.

    Raises:
        ModelError: naming the first entry that is not.
    """
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{where}: holds {type(content).__name__}, not named tensors.")
    wrong = [str(name) for name, value in content.items() if not (isinstance(name, str) and torch.is_tensor(value))]
    if wrong:
        raise ModelError(f"{where}: {wrong[0]!r} is no tensor.")
    return {name: LazyTensor.of(value.detach()) for name, value in content.items()}


def _read_safetensors(file: Path) -> Tensors:
    try:
        opened = safe_open(file, framework="pt")
        return {name: _entry(opened, name) for name in opened.keys()}  # type: ignore[no-untyped-call]  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{file}: cannot be read as safetensors ({first_line(error)}). Next: copy the file anew; it is truncated "
            "or damaged."
        ) from error


def _entry(opened: Any, name: str) -> LazyTensor:
    part = opened.get_slice(name)
    return LazyTensor(tuple(part.get_shape()), _dtype(part.get_dtype()), lambda: opened.get_tensor(name))


def _dtype(name: str) -> torch.dtype:
    return {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "I16": torch.int16,
        "I8": torch.int8,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }[name]


def weight_file(folder: Path) -> Path | None:
    """Find what holds the weights of a folder: an index, or a file of one of the usual names."""
    for stem in STEMS:
        for suffix in (".safetensors.index.json", ".safetensors", ".bin.index.json", ".bin"):
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    return None


def read_folder(folder: Path) -> Tensors:
    """Read the weights of a model folder, in one file or in shards.

    Raises:
        ModelError: if there are none, a shard is missing, or the index and the shards disagree.
    """
    file = weight_file(folder)
    if file is None:
        here = ", ".join(sorted(entry.name for entry in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise ModelError(f"{folder}: there are no weights ({here}). Allowed: {', '.join(STEMS)} as .safetensors, .bin.")
    return read_file(file) if file.suffix != ".json" else _read_shards(file)


def _read_shards(index: Path) -> Tensors:
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{index}: is no index of shards ({first_line(error)}). Next: copy it anew.") from error
    tensors: Tensors = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard:
            raise ModelError(f"{index}: names the shard {shard!r}. Allowed: files of this folder.")
        tensors |= read_file(index.parent / shard)
    missing, surplus = sorted(set(places) - set(tensors)), sorted(set(tensors) - set(places))
    if missing or surplus:
        raise ModelError(
            f"{index}: the shards do not hold what it says; missing: {', '.join(missing[:5]) or 'none'}; "
            f"surplus: {', '.join(surplus[:5]) or 'none'}. Next: copy the folder anew."
        )
    return tensors


def write_weights(tensors: Tensors, folder: Path, max_shard_bytes: int = 4_000_000_000) -> None:
    """Write `model.safetensors`, or shards with their index; one shard at a time is in memory.

    Raises:
        ModelError: naming a tensor with numbers that are not finite.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    files = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in zip(files, shards, strict=True):
        # a copy of each: safetensors refuses tensors that share memory, as split and mapped ones do
        read = {name: finite(name, tensors[name]).clone(memory_format=torch.contiguous_format) for name in names}
        save_file(read, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        total = sum(tensor.nbytes for tensor in tensors.values())
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def write_pickle(tensors: Tensors, file: Path) -> None:
    """Write the `.bin` that older programs read: named tensors, nothing else."""
    torch.save({name: finite(name, tensor).clone() for name, tensor in tensors.items()}, file)


def finite(name: str, tensor: LazyTensor) -> torch.Tensor:
    """Read a tensor that is to be written.

    Raises:
        ModelError: naming it, if it holds numbers that are not finite.
    """
    value = tensor.read()
    if not bool(value.isfinite().all()):
        raise ModelError(
            f"{name} holds numbers that are not finite ({value.dtype}). Next: get the source anew, it is damaged "
            "or of a failed training; with --dtype float16, take bfloat16, which holds larger numbers."
        )
    return value
