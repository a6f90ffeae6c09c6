"""What every format is read into and written from: language model, vision tower, projector, each whole or an adapter.

Names within a part are Hugging Face's own: those of the causal language model (`model.layers.0...`, `lm_head.weight`),
of the tower as transformers 4 spells them (`vision_model.encoder...` in CLIP and SigLIP), and layers for the projector.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lorgnette.errors import ModelError
from lorgnette.models.conversion.lora import Adapter
from lorgnette.models.conversion.names import listed
from lorgnette.models.conversion.weights import LazyTensor, Tensors


@dataclass(frozen=True)
class Layer:
    """One linear layer of a projector: weight (out, in), and bias (out) if it has one."""

    weight: LazyTensor
    bias: LazyTensor | None

    def tensors(self, name: str) -> Tensors:
        """Name its tensors: `{name}weight`, `{name}bias`."""
        found = {f"{name}weight": self.weight}
        return found if self.bias is None else found | {f"{name}bias": self.bias}


@dataclass(frozen=True)
class Projector:
    """Linear layers with GELU between them.

    Attributes:
        old: its numbers are meant for transformers before 5.4, which scaled image features in a Gemma (`gemma.py`);
            None if nothing says so.
    """

    layers: tuple[Layer, ...]
    old: bool | None

    @property
    def kind(self) -> str:
        """Return LLaVA's name: "linear" or "mlp{N}x_gelu"."""
        return "linear" if len(self.layers) == 1 else f"mlp{len(self.layers)}x_gelu"

    @property
    def sizes(self) -> tuple[int, int]:
        """Return (width of the tower's features, width of the language model)."""
        return self.layers[0].weight.shape[1], self.layers[-1].weight.shape[0]

    def meant_for(self, old: bool, scale: float) -> Projector:
        """Return the same projector for one side of Gemma's change; `scale` is sqrt(hidden size), or 1.

        Raises:
            ModelError: if it matters, and nothing says which side it is from.
        """
        if scale == 1.0 or self.old == old:
            return replace(self, old=old)
        if self.old is None:
            raise ModelError(
                "this projector is for a Gemma, and nothing says whether it was trained with transformers before 5.4, "
                "which scaled image features in another way. Next: convert the folder that it was trained in, or put "
                'a lorgnette.json with {"meant_for": "transformers < 5.4"} (or ">= 5.4") beside it.'
            )
        factor = scale if self.old else 1 / scale
        last = self.layers[-1]

        def scaled(tensor: LazyTensor) -> LazyTensor:
            return tensor.then(lambda value: (value.float() * factor).to(value.dtype))

        changed = Layer(scaled(last.weight), None if last.bias is None else scaled(last.bias))
        return Projector((*self.layers[:-1], changed), old)

    def to(self, dtype: torch.dtype | None) -> Projector:
        """Convert all tensors when they are read; None leaves them."""
        layers = (Layer(one.weight.to(dtype), one.bias.to(dtype) if one.bias else None) for one in self.layers)
        return replace(self, layers=tuple(layers))

    def sequential(self, name: str) -> Tensors:
        """Name its tensors as a Sequential with an activation between layers does: 0, 2, 4..."""
        return {key: t for n, layer in enumerate(self.layers) for key, t in layer.tensors(f"{name}{2 * n}.").items()}


def projector_from(tensors: Tensors, names: tuple[str, ...], old: bool | None, where: str) -> Projector:
    """Put a projector together from tensors named `{name}weight`, `{name}bias` for each of its layers.

    Raises:
        ModelError: naming tensors that are missing, left over, of shapes that do not follow one another, or not finite.
    """
    bias = any(name.endswith("bias") for name in tensors)
    expected = [f"{name}{kind}" for name in names for kind in (("weight", "bias") if bias else ("weight",))]
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in tensors if name not in expected]
    if missing or surplus:
        raise ModelError(
            f"{where}: projector tensors missing: {listed(missing) or 'none'}; surplus: {listed(surplus) or 'none'}."
        )
    layers = tuple(Layer(tensors[f"{name}weight"], tensors.get(f"{name}bias")) for name in names)
    width = layers[0].weight.shape[1] if len(layers[0].weight.shape) == 2 else 0
    for name, layer in zip(names, layers, strict=True):
        rows = layer.weight.shape[0]
        if layer.weight.shape != (rows, width) or (layer.bias is not None and layer.bias.shape != (rows,)):
            raise ModelError(f"{where}: {name}weight is {layer.weight.shape}; the layer before it gives {width}.")
        width = rows
    for name, tensor in tensors.items():
        if not bool(tensor.read().isfinite().all()):
            raise ModelError(f"{where}: {name} holds numbers that are not finite. Next: it is of a failed training.")
    return Projector(layers, old)


def sequential_names(tensors: Tensors) -> tuple[str, ...]:
    """Return the names of the layers of a Sequential, `0.`, `2.`, ..., up to the last that is there."""
    numbers = [int(name.split(".")[0]) for name in tensors if name.split(".")[0].isdecimal()]
    return tuple(f"{n}." for n in range(0, max(numbers, default=0) + 1, 2))


@dataclass(frozen=True)
class Parts:
    """What a checkpoint holds; None where it holds nothing of a part."""

    language_model: Tensors | Adapter | None = None
    vision_tower: Tensors | Adapter | None = None
    projector: Projector | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def adapters(self) -> dict[str, Adapter]:
        """Return the parts that are adapters."""
        both = {"language_model": self.language_model, "vision_tower": self.vision_tower}
        return {name: part for name, part in both.items() if isinstance(part, Adapter)}


def in_dtype(part: Any, dtype: torch.dtype | None) -> Any:
    """Convert a part, whatever it is, when it is read; None leaves it."""
    if isinstance(part, Adapter):
        return replace(part, tensors=in_dtype(part.tensors, dtype))
    if isinstance(part, dict):
        return {name: tensor.to(dtype) for name, tensor in part.items()}
    return part if part is None else part.to(dtype)


def folded(first: Layer, second: Layer) -> Layer:
    """Fold two linear layers without an activation between them into one, in float32."""
    dtype = first.weight.dtype

    def weight() -> torch.Tensor:
        return (second.weight.read().float() @ first.weight.read().float()).to(dtype)

    def bias() -> torch.Tensor:
        total = torch.zeros(second.weight.shape[0])
        if first.bias is not None:
            total = second.weight.read().float() @ first.bias.read().float()
        return (total + (0 if second.bias is None else second.bias.read().float())).to(dtype)

    shape = (second.weight.shape[0], first.weight.shape[1])
    has_bias = first.bias is not None or second.bias is not None
    return Layer(LazyTensor(shape, dtype, weight), LazyTensor((shape[0],), dtype, bias) if has_bias else None)
