"""Commands about data: data prepare, data make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from lorgnette.cli.terminal import console, say
from lorgnette.errors import DataError, InputError, nearest

if TYPE_CHECKING:
    from lorgnette.data.making.pictures import Pictures
    from lorgnette.data.remote_sensing.corpus import Prepared

Images = Annotated[Path, typer.Argument(help="Folder of pictures, or one picture.", show_default=False)]
Model = Annotated[str, typer.Option(help="The model's name, as the endpoint knows it.", show_default=False)]
Address = Annotated[
    str | None, typer.Option(help="Address of the endpoint; OPENAI_BASE_URL, or OpenAI's own.", show_default=False)
]
Price = Annotated[float | None, typer.Option(min=0, help="Price of a million tokens.", show_default=False)]
CORPORA = ("rs-instructions",)


def prepare(
    corpus: Annotated[str, typer.Argument(help="Which corpus: rs-instructions.", show_default=False)],
    source: Annotated[
        Path, typer.Argument(help="Folder with its JSON file and whatever you downloaded.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the data set.", show_default=False)],
    keep: Annotated[
        str, typer.Option(help="Which sets to keep, of NWPU,RSICD,LR,DOTA,UAV,UCM.")
    ] = "NWPU,RSICD,LR,DOTA",
    url: Annotated[
        list[str] | None,
        typer.Option(help="Fetch this file first; may be repeated.", metavar="URL[#sha256=HEX]", show_default=False),
    ] = None,
    max_download: Annotated[float, typer.Option(min=0.001, help="Most gigabytes of a single download.")] = 50.0,
) -> None:
    """Prepare a corpus whose images have to be gathered: dataset.json and its images, all of them decoded.

    Unpacks archives, converts TIFFs, says what is still missing. A second call does what is left. Exits with 2 if no
    row can be used or an archive was refused.

    Example: lorgnette data prepare rs-instructions downloads data/rs
    """
    from lorgnette.data.remote_sensing.corpus import prepare as gather  # noqa: PLC0415
    from lorgnette.locking import locked  # noqa: PLC0415

    if corpus not in CORPORA:
        raise DataError(f"There is no corpus '{corpus}'. Allowed: {', '.join(CORPORA)}.{nearest(corpus, CORPORA)}")
    sets = [name.strip() for name in keep.split(",") if name.strip()]
    with locked(out):
        done = gather(source, out, console, keep=sets, urls=url or (), max_download=int(max_download * 1e9))
    _show_prepared(done)
    say(f"The report is in {out / 'prepared.json'}")
    if done.rows:
        say(
            f"The data set is {out / 'dataset.json'} with {done.rows:,} rows\nNext, in a recipe: data: "
            f"[{{path: {out / 'dataset.json'}, format: llava, images: {out / 'imagenes'}}}]"
        )
    done.check()


def make(
    images: Images,
    out: Annotated[Path, typer.Argument(help="Folder for the data set.", show_default=False)],
    model: Model,
    base_url: Address = None,
    prompt: Annotated[str, typer.Option(help="en, ru, zh, es, or a text file of your own.")] = "en",
    pairs: Annotated[int, typer.Option(min=1, max=50, help="Questions about a picture.")] = 5,
    input_price: Price = None,
    output_price: Price = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Never spend more, earlier calls included.", show_default=False)
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=0, help="Never send more, earlier calls included.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; estimate tokens and price.")] = False,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(help="Leave out the pictures of this LLaVA file or folder: your test set.", show_default=False),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Requests at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 120.0,
    max_tokens: Annotated[int, typer.Option(min=16, help="Most tokens of an answer.")] = 2_000,
    image_side: Annotated[int, typer.Option(min=32, help="Scale pictures down to so many pixels.")] = 1_024,
    schema: Annotated[bool, typer.Option("--schema/--no-schema", help="Send the JSON schema too.")] = True,
) -> None:
    """Make questions and answers about pictures with a vision model behind an OpenAI-compatible address.

    The key is in the environment, OPENAI_API_KEY. Goes on where it stopped: what was answered is not paid again.

    Example: lorgnette data make pictures data/made --model gpt-4o-mini --prompt ru --input-price 0.15
    --output-price 0.6 --max-cost 5 --dry-run
    """
    from lorgnette.data.making.log import Prices  # noqa: PLC0415
    from lorgnette.data.making.make import make as ask  # noqa: PLC0415
    from lorgnette.data.making.pictures import find_pictures  # noqa: PLC0415
    from lorgnette.data.making.plan import Settings, plan  # noqa: PLC0415
    from lorgnette.data.making.prompt import read_prompt  # noqa: PLC0415
    from lorgnette.locking import locked  # noqa: PLC0415

    if (input_price is None) != (output_price is None):
        raise InputError("--input-price and --output-price go together.")
    settings = Settings(
        model=model,
        prompt=read_prompt(prompt, pairs),
        base_url=base_url,
        prices=None if input_price is None or output_price is None else Prices(input_price, output_price),
        max_cost=max_cost,
        max_requests=max_requests,
        max_tokens=max_tokens,
        image_side=image_side,
        concurrency=concurrency,
        timeout=timeout,
        schema=schema,
    )
    pictures = find_pictures(images, image_side, held_out or ())
    if dry_run:
        _show_plan(plan(pictures, settings.open_ledger(out), settings), pictures)
        return
    with locked(out):
        made = ask(pictures, out, settings, console)
    _show_made(made, out)


def _show_plan(found: dict[str, Any], pictures: Pictures) -> None:
    tokens, money = found["expected_tokens"], "no prices given"
    if found["expected_cost"] is not None:
        money = f"price about {found['expected_cost']:.4f}, at the very most {found['worst_cost']:.4f}"
    basis = "as measured so far" if found["measured"] else "a rough estimate: models count pictures differently"
    lines = [
        f"{found['to_ask']:,} pictures to ask about; {found['answered_already']:,} are answered already",
        f"left out: {len(pictures.copies):,} copies, {len(pictures.held_out):,} held out, "
        f"{len(pictures.broken):,} broken",
        f"about {tokens['input']:,} input and {tokens['output']:,} output tokens ({basis})",
        money + ("" if found["spent"] is None else f"; spent before: {found['spent']:.4f}"),
        "Nothing was sent. Next: the same command without --dry-run",
    ]
    say(*lines)


def _show_made(made: dict[str, Any], out: Path) -> None:
    lines = [f"{number:,} pictures {name}" for name, number in made["pictures"].items() if number]
    lines += [f"{made['repeated_questions']:,} repeated questions left out"] if made["repeated_questions"] else []
    cost = "" if made["cost"] is None else f", cost {made['cost']:.4f}"
    unsure = made["requests_with_estimated_tokens"]
    cost += f" ({unsure:,} requests with estimated tokens)" if unsure else ""
    lines.append(f"{made['requests']:,} requests in all{cost}")
    if made["stopped_by"]:
        lines.append(f"Stopped by {made['stopped_by']}. To go on: the same command with a higher one")
    lines += [
        f"{made['pairs']:,} pairs are in {out / 'dataset.json'}",
        f"Next: look through {out / 'review.html'}; then, in a recipe: data: [{{path: {out / 'dataset.json'}, "
        f"format: llava, images: {made['images']}}}]",
    ]
    say(*lines)


def _show_prepared(done: Prepared) -> None:
    states = ("named", "in place", "converted now", "broken", "ambiguous", "missing")
    table = Table("images of", *(Column(state, justify="right") for state in states), box=None)
    for name, counts in done.set_counts().items():
        table.add_row(name, *(f"{counts[state]:,}" for state in states))
    console.print(table)
    selection = done.selection
    dropped = selection.dropped
    lines = [f"{selection.read:,} rows read, {done.rows:,} kept; dropped: {dropped.total():,}"]
    lines += [f"  {count:,} {reason} (the first: {selection.examples[reason]})" for reason, count in dropped.items()]
    lines += [f"refused: {reason}" for reason in done.refused]
    lines += [f"unpack by hand, Python cannot: {label}" for label in done.by_hand]
    lines += [f"still to fetch: {line}" for line in done.to_fetch()]
    say(*lines)
