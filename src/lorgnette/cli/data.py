"""Commands about data: data check, data split."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from lorgnette.cli.results import result_name
from lorgnette.cli.terminal import Overrides, console, named_values, say, settle
from lorgnette.errors import DataError, InputError

if TYPE_CHECKING:
    from lorgnette.data.check.checked import Checked
    from lorgnette.data.pairs import AnyRenderer
    from lorgnette.data.readers.source import SourceSpec
    from lorgnette.data.sample import Sample
    from lorgnette.data.used_source import Purpose, UsedSource
    from lorgnette.images.store import ImageStore

Format = Annotated[str | None, typer.Option("--format", help="Which reader; seen from the first rows if not given.")]
Split = Annotated[str | None, typer.Option(help="Part of the data, where it has parts.")]
Images = Annotated[str | None, typer.Option(help="Folder of the images; beside the data if not given.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the reader (docs/data.md); may be repeated."),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes that decode images; all cores if not given.")]

MAX_BAD_SHARE = 0.01
RECIPES = (".yaml", ".yml")


def check(
    source: Annotated[
        str, typer.Argument(help="A recipe (.yaml), or a data file, folder or hub name.", show_default=False)
    ],
    format: Format = None,
    split: Split = None,
    images: Images = None,
    options: Options = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many rows.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A LLaVA or language model whose tokenizer and template render the rows.")
    ] = None,
    chat_template: Annotated[str | None, typer.Option(help="A named template in place of the tokenizer's own.")] = None,
    max_text_tokens: Annotated[int | None, typer.Option(min=1, help="As in a recipe.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="A file that the data must share nothing with; may be repeated.")
    ] = None,
    max_bad_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit with 2 above this share of bad rows; 0.01 if not given.")
    ] = None,
    fix: Annotated[Path | None, typer.Option(help="Write the usable rows and rejected.jsonl to this folder.")] = None,
    show: Annotated[str | None, typer.Option(metavar="ID|N", help="Only show this row, as it is trained.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="The page; if not given checks/NAME.html, rs-train for rs/train.json.")
    ] = None,
    workers: Workers = None,
    overrides: Overrides = None,
) -> None:
    """Read all data, decode every image, render every row; say what was found and what will be done with it.

    Example: lorgnette data check train.json --images pictures --model runs/quickstart/merged --fix fixed
    """
    from lorgnette.data.check.files import require_report  # noqa: PLC0415
    from lorgnette.images.store import cores, image_store  # noqa: PLC0415

    share = MAX_BAD_SHARE if max_bad_share is None else max_bad_share
    if source.endswith(RECIPES):
        of_a_file = (format, split, images, options, limit, model, chat_template, max_text_tokens, held_out)
        given = any(option is not None for option in (*of_a_file, max_bad_share))
        sources, share = _recipe_sources(source, overrides, has_file_options=given)
    else:
        settle()
        renderer = _renderer(model, chat_template, max_text_tokens)
        spec = _spec(source, split, images, options)
        sources = [_source(spec, "train", format, limit, renderer)]
        sources += [_source(replace(spec, path=path), "validation", format, None, renderer) for path in held_out or ()]
    name = str(Path(source).with_suffix("")) if Path(source).is_file() else source
    page = Path("checks") / f"{result_name(name)}.html" if report is None else report
    require_report(page)
    with image_store(workers or cores()) as store:
        if show is not None:
            _show(sources, show, page, store)
        else:
            _check(sources, store, share, page, fix, source, overrides)


def split(
    sources: Annotated[list[str], typer.Argument(help="Data files, folders or hub names.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="The folder to write.", show_default=False)],
    shares: Annotated[str, typer.Option(help="TRAIN/VAL/TEST in percent; VAL may be 0.")] = "70/10/20",
    seed: Annotated[int, typer.Option(help="Another seed is another split.")] = 42,
    near_duplicates: Annotated[
        int | None,
        typer.Option(min=0, max=16, help="Keep images together that look alike: most differing bits of 64; try 4."),
    ] = None,
    format: Format = None,
    from_split: Annotated[
        str | None, typer.Option("--split", help="Part of the data to split, where it has parts.")
    ] = None,
    images: Images = None,
    options: Options = None,
    max_bad_share: Annotated[
        float, typer.Option(min=0, max=1, help="Stop above this share of bad rows.")
    ] = MAX_BAD_SHARE,
    workers: Workers = None,
) -> None:
    """Split data into train, val and test so that no image is in two of them; the same everywhere for the same seed.

    Example: lorgnette data split dataset.json splits --images pictures --shares 70/10/20
    """
    from lorgnette.data.split.files import require_free, split_files, write_split  # noqa: PLC0415
    from lorgnette.data.split.sets import parse_shares  # noqa: PLC0415
    from lorgnette.images.store import cores, image_store  # noqa: PLC0415

    wanted = parse_shares(shares)
    require_free(output)
    specs = [_spec(source, from_split, images, options) for source in sources]
    used = [_source(spec, "train", format, None, None) for spec in specs]
    with image_store(workers or cores()) as store:
        made = split_files(used, store, wanted, seed=seed, near_duplicates=near_duplicates, max_bad_share=max_bad_share)
    same = write_split(output, made)
    folder = made.images_in(output)
    words = [str(output / "train.json"), "--images", str(folder), "--held-out", str(output / "test.json")]
    say(
        *made.lines,
        f"{'The same split was already' if same else 'The split is'} in {output}; images are relative to {folder}\n"
        f"Next: lorgnette data check {shlex.join(words)}",
    )


def _recipe_sources(
    source: str, overrides: list[str] | None, *, has_file_options: bool
) -> tuple[list[UsedSource], float]:
    if has_file_options:
        raise InputError(
            f"{source}: is a recipe, which says itself what its data is. Next: leave the options of files out, or "
            "override fields, such as --set max_bad_share=0.05"
        )
    settle()
    from lorgnette.recipe.reading import read_recipe  # noqa: PLC0415
    from lorgnette.recipe_data import sources_of_recipe  # noqa: PLC0415

    recipe = read_recipe(Path(source), overrides or [])
    return sources_of_recipe(recipe), recipe.max_bad_share


def _spec(path: str, split: str | None, images: str | None, options: list[str] | None) -> SourceSpec:
    from lorgnette.data.readers.source import SourceSpec  # noqa: PLC0415
    from lorgnette.recipe.yaml_text import parse_yaml  # noqa: PLC0415

    given = {name: parse_yaml(text) for name, text in named_values(options).items()}
    for name, value in given.items():
        if value.mistakes:
            raise InputError(f"--option {name}: {value.mistakes[0].text}. Allowed: a value as in a recipe, in YAML.")
    return SourceSpec(path, split, images, {name: value.data for name, value in given.items()})


def _source(
    spec: SourceSpec, purpose: Purpose, format: str | None, limit: int | None, renderer: AnyRenderer | None
) -> UsedSource:
    from lorgnette.data.used_source import detect_format, used_source  # noqa: PLC0415

    found = format or detect_format(spec)
    if format is None:
        say(f"{spec.path}: read as {found} (--format to say otherwise)")
    return used_source("data" if purpose == "train" else "held out", purpose, spec, found, limit, renderer)


def _renderer(model: str | None, chat_template: str | None, max_text_tokens: int | None) -> AnyRenderer | None:
    if model is None:
        if chat_template is not None or max_text_tokens is not None:
            raise InputError("--chat-template and --max-text-tokens need a tokenizer. Next: give --model.")
        say("No --model: rows are not rendered, so lengths in tokens and labels are not checked.")
        return None
    from lorgnette.recipe_data import renderer_for  # noqa: PLC0415

    return renderer_for(model, chat_template, max_text_tokens)


def _show(sources: Sequence[UsedSource], wanted: str, page: Path, store: ImageStore) -> None:
    from lorgnette.data.check.show import show_row  # noqa: PLC0415

    file = show_row(sources, wanted, page, store, console)
    say(f"\nWith its images in {file}")


def _check(
    sources: Sequence[UsedSource],
    store: ImageStore,
    max_bad_share: float,
    page: Path,
    fix: Path | None,
    source: str,
    overrides: Sequence[str] | None,
) -> None:
    from lorgnette.data.check.files import (  # noqa: PLC0415
        REJECTED,
        fixed_names,
        fixed_source,
        names_of,
        require_empty,
        write_check,
        write_fixed,
    )
    from lorgnette.data.check.sources import check_sources  # noqa: PLC0415
    from lorgnette.data.check.terminal import print_checked  # noqa: PLC0415
    from lorgnette.progress import progress_bar  # noqa: PLC0415

    if fix is not None:
        require_empty(fix)
    with progress_bar(console) as progress:
        checked = check_sources(
            sources,
            store,
            max_bad_share,
            names_of=None if fix is None else names_of,
            watch=lambda samples, source: _watched(progress, samples, source),
        )
    for found in checked:
        print_checked(found, console)
    numbers = write_check(page, source, checked, store)
    say(f"{store.asked:,} images, {store.decoded:,} of them decoded now")
    say(f"The report is in {page}, the same as numbers in {numbers}")
    fixed: list[tuple[UsedSource, UsedSource]] = []
    if fix is not None:
        say(*write_fixed(fix, checked))
        names = fixed_names(sources)
        fixed = [(sources[n], fixed_source(fix, names[n], checked[n])) for n in names if checked[n].fixable]
        empty = [found for n, found in enumerate(checked) if n in names and found.fixable and not found.rows]
        if empty:
            raise DataError(
                f"{empty[0].source.path}: no row is left to be used: all that can be read stand elsewhere too, see "
                f"{fix / REJECTED}. Next: other rows."
            )
    stopped = [found for found in checked if found.stop and not (fix is not None and found.fixable)]
    if stopped:
        told = [f"{found.source.name}, {found.source.path}: {found.stop}" for found in stopped]
        raise DataError("\n".join(told) + ("" if fix is not None else _way_out(source, stopped)))
    say(f"Next: {_next_step(source, sources, fixed, overrides)}")


def _way_out(source: str, stopped: Sequence[Checked]) -> str:
    """Say how the usable rows can be had, if those that are not are all that is wrong."""
    if not all(found.fixable for found in stopped):
        return ""
    raised = "max_bad_share" if source.endswith(RECIPES) else "--max-bad-share"
    again = shlex.join([*sys.argv[1:3], "--fix", "fixed", *sys.argv[3:]])
    return f"\nNext: lorgnette {again} writes the usable rows; or raise {raised}."


def _next_step(
    source: str,
    sources: Sequence[UsedSource],
    fixed: Sequence[tuple[UsedSource, UsedSource]],
    overrides: Sequence[str] | None,
) -> str:
    """Return what to do with data that was checked, or with the fixed files in its place."""
    from lorgnette.data.used_source import recipe_entry, words_of  # noqa: PLC0415

    if source.endswith(RECIPES):
        there = [f"\n  {recipe_entry(new)} in place of {old.path} ({old.name})" for old, new in fixed]
        change = f"in {source} write, each with its weight,{','.join(there)}\nand then: " if there else ""
        overridden = [word for override in overrides or () for word in ("--set", override)]
        return f"{change}lorgnette run {shlex.join([source, *overridden])}"
    usable = next((new for old, new in fixed if old is sources[0]), sources[0])
    if len(sources) > 1:  # what is held out is there already: splitting again would only lead back here
        return f"train on it: in a recipe, data: [{recipe_entry(usable)}], and then lorgnette run RECIPE"
    words = words_of(usable)
    images = ["--images", usable.images] if usable.spec is None and usable.images else []
    return f"lorgnette data split {shlex.join([words[0], 'splits', *words[1:], *images])}"


def _watched(
    progress: Progress, samples: Iterator[Sample | DataError], source: UsedSource
) -> Iterator[Sample | DataError]:
    from lorgnette.progress import counted  # noqa: PLC0415

    yield from counted(progress, samples, f"checking {source.name}")
