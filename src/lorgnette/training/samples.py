"""The samples of a stage: its sources read, judged and rendered by the same rules as `lorgnette data check` goes by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.progress import Progress

from lorgnette.data.dataset import RenderedDataset, RenderedSamples, render_all, weighted
from lorgnette.data.encodings import Encodings, cache_file
from lorgnette.data.findings import Judged
from lorgnette.data.pairs import AnyRenderer
from lorgnette.data.readers import read_samples
from lorgnette.data.reading_ahead import read_ahead
from lorgnette.data.rendered import Rendered, soft_prompt_ids
from lorgnette.data.rules import Usable, judge
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError
from lorgnette.images.opening import open_image
from lorgnette.images.store import ImageStore, cores, image_store
from lorgnette.models.learner import Learner
from lorgnette.progress import counted
from lorgnette.recipe.sections import Source, Stage

FEW_IMAGES = 256
"""So many new images are opened before other processes are started to help."""


@dataclass(frozen=True)
class StageData:
    """What a stage learns from and is validated on, and what became of the rows of both."""

    train: RenderedDataset
    judged: Judged
    validation: RenderedDataset
    validation_judged: Judged


def render_stage(stage: Stage, learner: Learner, seed: int, max_bad_share: float, progress: Progress) -> StageData:
    """Render all data of a stage.

    Args:
        learner: the model of the stage; its outline renders the same.

    Raises:
        DataError: if a source cannot be read, or too many of its samples cannot be used.
    """
    train, judged = render_sources(stage, stage.data, learner, seed, max_bad_share, progress)
    return StageData(train, judged, *render_sources(stage, stage.validation, learner, seed, max_bad_share, progress))


def render_sources(
    stage: Stage, sources: Sequence[Source], learner: Learner, seed: int, max_bad_share: float, progress: Progress
) -> tuple[RenderedDataset, Judged]:
    """Render all samples of a stage's sources, each source repeated by its weight.

    Images that neither a check nor an earlier start has opened are opened here: a broken one is a row less now, and the
    end of the run later.

    Raises:
        DataError: if a source cannot be read, or too many of its samples cannot be used.
    """
    renderer = renderer_of(stage, learner)
    everything = []
    total = Judged()
    with image_store(cores(), alone=FEW_IMAGES) as images:
        for source in sources:
            rendered, judged = _render_source(source, renderer, max_bad_share, images, progress)
            chosen = weighted(len(rendered), source.weight, seed)
            if not chosen:
                raise DataError(
                    f"{source.path}: weight {source.weight} of {len(rendered)} samples leaves none. Next: raise it."
                )
            everything.append((rendered, chosen))
            total = total + judged
    return RenderedDataset(everything), total


def _render_source(
    source: Source, renderer: AnyRenderer, max_bad_share: float, images: ImageStore, progress: Progress
) -> tuple[RenderedSamples, Judged]:
    ahead = read_ahead(samples_of(source), images)
    shown = counted(progress, ahead, f"reading {source.path}")
    encodings = Encodings(cache_file(renderer, source.path, source.format, source.split))
    rendered, judged = render_all(shown, renderer, max_bad_share, encodings, images.require_image)
    if source.limit is not None and judged.read < source.limit:
        judged.notes.append(f"{source.path}: limit {source.limit:,}, but it has only {judged.read:,} samples")
    return rendered, judged


def usable_samples(stage: Stage, learner: Learner) -> Iterator[Rendered]:
    """Yield the samples of a stage that render and whose images open, in their order; others are passed over."""
    renderer = renderer_of(stage, learner)
    for source in stage.data:
        for row in samples_of(source):
            verdict = judge(row, open_image, renderer.render)
            if isinstance(verdict, Usable):  # others were counted and shown when the stage was trained
                yield verdict.encoded


def renderer_of(stage: Stage, learner: Learner) -> AnyRenderer:
    """Return the renderer of a stage's samples."""
    prompt = soft_prompt_ids(stage.prompt_tuning["num_virtual_tokens"]) if stage.prompt_tuning else None
    return learner.renderer(stage.chat_template, stage.max_text_tokens, stage.too_long, prompt)


def samples_of(source: Source) -> Iterator[Sample | DataError]:
    """Read a source of the recipe.

    Raises:
        DataError: if there is no such format, or the source cannot be read.
    """
    return read_samples(source.path, source.format, source.split, source.images, source.limit, source.options)
