"""A check on the terminal: a table of findings a source, and one sample as it is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorgnette.data.check.checked import Checked
from lorgnette.data.check.report import percentiles
from lorgnette.data.check.segments import Segment
from lorgnette.pages import printable_lines

STYLES = {"stop": "bold red", "drop": "red", "mend": "yellow", "keep": "cyan", "leave out": "dim"}
MOST_VARIANTS = 4
MOST_REASON = 150  # characters; the page has them all


def print_checked(checked: Checked, console: Console) -> None:
    """Print what was found in a source."""
    source = checked.source
    console.print(
        Text(f"{source.name}: {printable_lines(source.path)} ({source.format})", style="bold"), soft_wrap=True
    )
    for name, count in checked.variants.most_common(MOST_VARIANTS):
        console.print(Text(f"  {count:,} rows: {printable_lines(name)}", style="dim"), soft_wrap=True)
    if checked.judged.findings:
        console.print(_table(checked))
    kept = f"{checked.judged.kept:,} of {checked.judged.read:,} rows can be used; {len(checked.images):,} images"
    if checked.judged.tokens:
        kept += (
            f"; {checked.judged.tokens:,} tokens, {checked.judged.supervised / checked.judged.tokens:.1%} supervised"
        )
    console.print(kept, markup=False, soft_wrap=True)
    lengths = ", ".join(f"{name} {value:,}" for name, value in percentiles(checked.lengths).items())
    if lengths and source.purpose != "test":
        console.print(f"length in {'text tokens' if source.renderer else 'characters'}: {lengths}", soft_wrap=True)
    for note in checked.judged.notes:
        console.print(Text(f"note: {printable_lines(note)}"), soft_wrap=True)
    if checked.stop:
        console.print(Text(f"stop: {printable_lines(checked.stop)}", style="bold red"), soft_wrap=True)
    console.print()


def _table(checked: Checked) -> Table:
    file = Path(checked.source.path).name  # the whole path is in the heading
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("finding", min_width=min(24, max(len(finding.kind) for finding in checked.sorted())))
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("done", no_wrap=True)
    table.add_column("first examples", overflow="fold")
    for finding in checked.sorted():
        places = [example.place.replace(checked.source.path, file, 1) for example in finding.examples]
        examples = [Text(printable_lines(place), style="dim") for place in places]
        if finding.examples and finding.action in ("stop", "drop"):
            reason = finding.examples[0].reason.partition(" Next: ")[0]
            examples.insert(1, Text(f"  {printable_lines(reason[:MOST_REASON])}"))
        table.add_row(
            Text(printable_lines(finding.kind), style=STYLES[finding.action]),
            f"{finding.count:,}",
            f"{checked.share(finding):.2%}",
            finding.done,
            Text("\n").join(examples),
        )
    return table


def sample_text(segments: Iterable[Segment], image_tokens: int, *, coloured: bool) -> Text:
    """Return a sample with what the model is trained to say marked: by colour, or between brackets without colours."""
    text = Text()
    for segment in segments:
        if segment.role == "image":
            text.append(f"[image x {image_tokens}]" if segment.tokens else "[image]", style="dim")
        elif segment.role == "read":
            text.append(segment.text)
        elif coloured:
            text.append(segment.text, style="bold green")
        else:
            text.append(f"⟦{segment.text}⟧")
    return text
