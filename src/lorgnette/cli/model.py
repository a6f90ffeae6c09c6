"""Commands about models: model convert."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lorgnette.cli.terminal import console, settle


class Target(StrEnum):
    """Layouts that `model convert` writes."""

    HF = "hf"
    HF4 = "hf4"
    LLAVA = "llava"
    XTUNER = "xtuner"


class Dtype(StrEnum):
    """Dtypes that weights can be written in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def convert(
    source: Annotated[
        str, typer.Argument(help="A model, adapter or projector: folder, file or hub name.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(help="The folder to write; it must not be there.", show_default=False)],
    to: Annotated[
        Target,
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
        Dtype | None, typer.Option(help="Of the written weights; as they are if not given.", show_default=False)
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
    for sentence in done.said:
        console.print(sentence, soft_wrap=True, markup=False)
    console.print(f"Written to {output}\nNext: {done.next_step}", soft_wrap=True, markup=False)
