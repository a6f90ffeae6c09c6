"""Rows against the plain way: the same samples, one by one, through transformers' own forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from lorgnette.data import rows
from lorgnette.data.dataset import RowCollator
from lorgnette.data.rendered import Rendered
from lorgnette.data.sample import Sample
from lorgnette.models.assembly import assemble
from lorgnette.models.attention import row_attention
from lorgnette.models.forward import row_logits
from lorgnette.models.loading import Llava
from small import renderer_of


def plain_loss(llava: Llava, sample: Rendered) -> torch.Tensor:
    """Summed loss of one sample by transformers alone: its image processor, its masks, its shift."""
    model = llava.core
    model.model.language_model.set_attn_implementation("sdpa")
    pixels = None
    if sample.images:
        images = [Image.open(path).convert("RGB") for path in sample.images]
        pixels = llava.processor.image_processor(images, return_tensors="pt")["pixel_values"]
    ids, labels = torch.tensor([sample.input_ids]), torch.tensor([sample.labels])
    logits = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).logits
    return cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum", ignore_index=-100)


def row_loss(llava: Llava, rendered: Sequence[Rendered], share_images: bool) -> torch.Tensor:
    """Summed loss of all samples in one row."""
    from lorgnette.models.forward import prepare_for_rows

    prepare_for_rows(llava.core)
    collate = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id, share_images)
    row = collate(rendered)["row"]
    return cross_entropy(row_logits(llava.model, llava.core, row, llava.scale), row.labels, reduction="sum")


def gradients(llava: Llava, losses: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradients of the sum of losses by parameter name."""
    llava.core.zero_grad()
    sum(losses).backward()
    found = llava.core.named_parameters()
    return {name: parameter.grad.clone() for name, parameter in found if parameter.grad is not None}


@pytest.mark.parametrize("language_model", ["llama", "qwen2", "gemma"])
@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
@pytest.mark.parametrize("share_images", [True, False])
def test_loss_and_gradients_of_a_row_equal_those_of_its_samples_one_by_one(
    parts: Callable[[str, str], tuple[str, str]],
    samples: list[Sample],
    tower: str,
    language_model: str,
    share_images: bool,
) -> None:
    llava = assemble(*parts(tower, language_model), seed=3)
    llava.core.requires_grad_(True)
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    one_by_one = [plain_loss(llava, sample) for sample in rendered]
    expected = gradients(llava, one_by_one)
    together = row_loss(llava, rendered, share_images)
    found = gradients(llava, [together])
    assert together.item() == pytest.approx(sum(one_by_one).item(), rel=1e-5)
    assert found.keys() == expected.keys()
    # the gradient of a key's bias is zero but for rounding (softmax does not see it), so rounding needs a floor
    rounding = torch.finfo(torch.float32).eps * torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + rounding, name


def test_a_group_of_long_branches_is_attended_to_in_several_blocks_with_the_same_result(
    llava: Llava, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    llava.core.requires_grad_(True)
    rendered = [renderer_of(llava).render(sample) for sample in samples if sample.id in {"a1", "a2", "a3", "b1", "b2"}]
    whole = row_loss(llava, rendered, share_images=True)
    expected = gradients(llava, [whole])
    monkeypatch.setattr(rows, "MOST_QUERIES", 30)
    collate = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)
    row = collate(rendered)["row"]
    assert [len(block.keys) for block in row.layout.blocks] == [1, 1, 2, 2, 1, 1, 2]
    parted = row_loss(llava, rendered, share_images=True)
    found = gradients(llava, [parted])
    assert parted.item() == pytest.approx(whole.item(), rel=1e-6)
    rounding = torch.finfo(torch.float32).eps * torch.stack([g.norm() for g in expected.values()]).norm()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + rounding, name


def test_shared_images_make_the_row_shorter_and_the_tower_runs_once_per_image(
    llava: Llava, samples: list[Sample]
) -> None:
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    alone = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id, share_images=False)
    shared = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)
    total = sum(len(sample.input_ids) for sample in rendered)
    assert alone(rendered)["row"].input_ids.shape[1] == total  # no padding
    row = shared(rendered)["row"]
    assert row.input_ids.shape[1] < total - 3 * llava.image_tokens
    assert row.pixel_values.shape[0] == 4
    assert row.labels.numel() == sum(sample.supervised for sample in rendered)


def test_a_sample_does_not_see_its_neighbours(llava: Llava, samples: list[Sample]) -> None:
    rendered = [renderer_of(llava).render(sample) for sample in samples]
    collate = RowCollator(llava.processor.image_processor, llava.core.config.image_token_id)
    with torch.no_grad():
        alone = collate(rendered[:1])["row"]
        first = row_logits(llava.model, llava.core, alone, llava.scale)
        together = collate(rendered)["row"]
        count = alone.labels.numel()
        among = row_logits(llava.model, llava.core, together, llava.scale)[:count]
    assert torch.allclose(first, among, atol=1e-5)


def test_attention_in_half_precision_is_that_of_single_precision_rounded_once() -> None:
    torch.manual_seed(0)
    group = slice(0, 6), slice(6, 13)  # a prefix and its branches, then a sample of its own
    mask = torch.ones(7, 13, dtype=torch.bool).tril(6)
    blocks = (
        rows.Block(group[0], (group[0],)),
        rows.Block(group[1], group, mask),
        rows.Block(slice(13, 18), (slice(13, 18),)),
    )
    half = [torch.randn(1, heads, 18, 8).bfloat16().requires_grad_() for heads in (4, 2, 2)]
    single = [tensor.detach().float().requires_grad_() for tensor in half]
    upstream = torch.randn(1, 18, 4, 8).bfloat16()
    for tensors, gradient in ((half, upstream), (single, upstream.float())):
        attended, _ = row_attention(torch.nn.Identity(), *tensors, None, row_layout=rows.Layout(blocks, 13))
        attended.backward(gradient)
        tensors.append(attended)
    *inputs, rounded = half
    assert torch.equal(rounded, single[-1].bfloat16())
    for before, after in zip(inputs, single, strict=False):
        assert torch.equal(before.grad, after.grad.bfloat16())
