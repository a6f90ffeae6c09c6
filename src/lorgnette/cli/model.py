"""Commands about models: model inspect, model build, model merge, model convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lorgnette.cli.terminal import Overrides, console, say, settle
from lorgnette.errors import InputError, typed

Dtype = Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the weights.")]


def inspect(
    model: Annotated[str | None, typer.Argument(help="Folder or hub name.", show_default=False)] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Show what each stage of a recipe would train.", show_default=False)
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Show what a model is, or what a recipe would train of it; no weights are read, so a 7B model needs no memory.

    Example: lorgnette model inspect --recipe recipes/smollm2-dinov2-easyvqa.yaml
    """
    settle()
    from lorgnette.models.inspection import describe, describe_source, show_description  # noqa: PLC0415
    from lorgnette.recipe.reading import read_recipe  # noqa: PLC0415
    from lorgnette.recipe_model import outlines  # noqa: PLC0415

    if (model is None) == (recipe is None):
        raise InputError("model inspect takes a MODEL or a --recipe, one of them.")
    if model is not None:
        show_description(describe_source(model), console)
        say(f"Next: lorgnette evaluate {typed(model)} --task NAME")
        return
    assert recipe is not None
    asked = read_recipe(recipe, overrides or [])
    for title, learner, parts, dtype in outlines(asked):
        say(f"\n{title}")
        show_description(describe(learner, parts, dtype, assembled=asked.model.build is None), console)
    say(f"Next: lorgnette run {typed(recipe)}")


def build(
    vision_tower: Annotated[str, typer.Argument(help="The model that sees: folder or hub name.", show_default=False)],
    language_model: Annotated[
        str, typer.Argument(help="The model that speaks: folder or hub name.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="The new folder.", show_default=False)],
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the images; the tower's own if not given.")
    ] = None,
    do_pad: Annotated[
        bool, typer.Option("--do-pad", help="Pad images to squares, as LLaVA does, whatever the tower's own way is.")
    ] = False,
    vision_feature_layer: Annotated[int, typer.Option(help="The layer of the tower that is projected.")] = -2,
    chat_template: Annotated[str | None, typer.Option(help="A named one; the tokenizer's own if not given.")] = None,
    dtype: Dtype = "float32",
    seed: Annotated[int, typer.Option(help="Of the new projector.")] = 42,
) -> None:
    """Put a vision tower and a language model together; the projector between them is untrained.

    Example: lorgnette model build openai/clip-vit-large-patch14-336 Qwen/Qwen1.5-4B-Chat qwen-llava --dtype bfloat16
    """
    settle()
    from lorgnette.models.assembly import assemble  # noqa: PLC0415
    from lorgnette.models.loading import DTYPES  # noqa: PLC0415
    from lorgnette.models.saving import save_llava  # noqa: PLC0415
    from lorgnette.run import require_absent  # noqa: PLC0415

    require_absent(output)
    llava = assemble(
        vision_tower,
        language_model,
        vision_feature_layer=vision_feature_layer,
        image_size=image_size,
        do_pad=do_pad,
        template=chat_template,
        dtype=DTYPES[dtype],
        seed=seed,
    )
    made_of = {"vision_tower": vision_tower, "language_model": language_model}
    save_llava(llava, output, {"kind": "base", "build": made_of, "seed": seed})
    say(f"The model is in {output}\nNext: give it as model.base in a recipe; its projector is untrained.")


def merge(
    base: Annotated[str, typer.Argument(help="What the adapters were trained on.", show_default=False)],
    adapters: Annotated[list[Path], typer.Argument(help="Adapters, in their order.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new folder.", show_default=False)],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the written weights.")
    ] = "bfloat16",
    max_shard_size: Annotated[str, typer.Option(help="Of one file.")] = "4GB",
    samples: Annotated[
        Path | None, typer.Option(help="LLaVA conversations to compare on; noise if not given.", show_default=False)
    ] = None,
    images: Annotated[str | None, typer.Option(help="The folder of their images.", show_default=False)] = None,
) -> None:
    """Merge adapters into their base in float32 and check the written folder against base + adapters.

    Example: lorgnette model merge runs/mine/base runs/mine/stages/finetune/trained --output merged
    """
    settle()
    from lorgnette.models.merging import merge_adapters  # noqa: PLC0415

    difference = merge_adapters(
        base, adapters, output, dtype=dtype, max_shard_size=max_shard_size, samples=samples, images=images
    )
    say(
        f"The model is in {output}; its logits differ from base + adapters by {difference:.1e} of the largest\n"
        f"Next: lorgnette evaluate {typed(output)} --task NAME"
    )


def convert(
    source: Annotated[
        str, typer.Argument(help="A model, adapter or projector: folder, file or hub name.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="The folder to write; it must not be there.", show_default=False)],
    to: Annotated[
        Literal["hf", "hf4", "llava", "xtuner"],
        typer.Option(
            help="hf: Hugging Face and PEFT; hf4: the same for transformers before 5.4; llava: the original; xtuner.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The model that an adapter or a checkpoint with some parts belongs to.", show_default=False),
    ] = None,
    vision_tower: Annotated[
        str | None,
        typer.Option(help="The vision tower, where the source does not hold or name it.", show_default=False),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="A chat template by name, such as vicuna_v1.", show_default=False)
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Of the written weights; as they are if not given.", show_default=False),
    ] = None,
    xtuner_config: Annotated[
        Path | None,
        typer.Option(help="XTuner's configuration of the run, if a .pth does not carry it.", show_default=False),
    ] = None,
) -> None:
    """Convert between Hugging Face, the original LLaVA and XTuner; what the source is, is seen from its content.

    Example: lorgnette model convert liuhaotian/llava-v1.5-7b llava-7b --to hf --template vicuna_v1
    """
    settle()
    import torch  # noqa: PLC0415

    from lorgnette.models.conversion.convert import Options  # noqa: PLC0415
    from lorgnette.models.conversion.convert import convert as run  # noqa: PLC0415
    from lorgnette.models.loading import DTYPES  # noqa: PLC0415

    dtypes = DTYPES | {"float16": torch.float16}
    options = Options(base, vision_tower, template, dtypes[dtype] if dtype else None, xtuner_config)
    done = run(source, to, output, options)
    say(*done.said, f"Written to {output}")
    if done.next_step is not None:
        say(f"Next: {done.next_step}")
