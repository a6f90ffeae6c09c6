"""Sources to training data: nothing is rendered twice, what is counted is true, mixtures are fixed by the seed."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lorgnette.data import encodings as module
from lorgnette.data import rendering
from lorgnette.data.dataset import RenderedDataset, RenderedSamples, SharedImageSampler, render_all, weighted
from lorgnette.data.encodings import Encodings, cache_file, fingerprint
from lorgnette.data.findings import Judged
from lorgnette.data.readers import read_samples
from lorgnette.data.rendering import Renderer
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.data.templates import chat_template
from lorgnette.errors import DataError, LeftOut, RowError
from small import conversation, make_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    made = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    made.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    return made


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "FEWEST", 1)


def renderer_of(tokenizer, name: str | None = None, image_tokens: int = 5, **more: Any) -> Renderer:
    return Renderer(chat_template(tokenizer, name), tokenizer.convert_tokens_to_ids("<image>"), image_tokens, **more)


def bad(number: int) -> RowError:
    return RowError("image cell", f"x.json, row {number}", "no image.")


def rendered(samples: list[Any], renderer: Renderer, share: float = 1.0) -> tuple[RenderedSamples, Judged, Encodings]:
    encodings = Encodings(cache_file(renderer, "x.json", "llava", None))
    kept, judged = render_all(samples, renderer, share, encodings)
    return kept, judged, encodings


def content(kept: RenderedSamples) -> str:
    return RenderedDataset([(kept, range(len(kept)))]).content_hash()


LIMITS: list[dict[str, Any]] = [
    {},
    {"max_text_tokens": 40},
    {"max_text_tokens": 20, "too_long": "cut_end"},
    {"name": "vicuna_v1"},
]


@pytest.mark.parametrize("more", LIMITS)
def test_what_is_kept_small_is_what_rendering_gives(tokenizer, samples: list[Sample], more: dict[str, Any]) -> None:
    renderer = renderer_of(tokenizer, **more)
    expected = []
    for sample in samples:
        try:
            expected.append(renderer.render(sample))
        except DataError:
            continue
    kept, judged = render_all(samples, renderer, 1.0)
    assert list(kept) == expected
    assert len(kept) > 4
    assert judged.kept == len(expected)
    assert judged.tokens == sum(len(each.input_ids) for each in expected)
    assert judged.supervised == sum(each.supervised for each in expected)
    assert judged.shortened == sum(each.shortened > 0 for each in expected)
    assert judged.shortened_tokens == sum(each.shortened for each in expected)


@pytest.mark.parametrize("more", LIMITS)
def test_the_second_start_renders_nothing_and_gives_the_same(
    tokenizer, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    renderer = renderer_of(tokenizer, **more)
    rows = [*samples, bad(3), LeftOut("left out: UAV", "x.json, row 4", "says so.")]
    first, judged, _ = rendered(rows, renderer)
    plain, plain_judged = render_all(rows, renderer_of(tokenizer, **more), 1.0)
    second_renderer = renderer_of(tokenizer, **more)
    calls: Counter[str] = Counter()

    def counting(sample: Sample) -> Any:
        calls[sample.id] += 1
        return Renderer.encode(second_renderer, sample)

    monkeypatch.setattr(second_renderer, "encode", counting)
    second, second_judged, encodings = rendered(rows, second_renderer)
    assert encodings.known == len(encodings) > 4
    assert sum(calls.values()) == judged.read - judged.kept - 1  # errors are found anew
    assert list(first) == list(second) == list(plain)
    assert judged == second_judged == plain_judged
    assert content(first) == content(second) == content(plain)


def test_one_changed_conversation_is_the_one_that_is_rendered(
    tokenizer, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered(samples, renderer_of(tokenizer))
    changed = [replace(samples[0], turns=(samples[0].turns[0], Turn("assistant", "teal"))), *samples[1:]]
    renderer, plain = renderer_of(tokenizer), renderer_of(tokenizer)
    calls = []
    monkeypatch.setattr(renderer, "encode", lambda sample: calls.append(sample.id) or Renderer.encode(plain, sample))
    kept, _, _ = rendered(changed, renderer)
    assert calls == [samples[0].id]
    assert list(kept) == [plain.render(sample) for sample in changed]


def test_the_cache_is_of_one_tokenizer_template_and_limit(tokenizer, tmp_path: Path) -> None:
    other = make_tokenizer(tmp_path)
    other.add_special_tokens({"additional_special_tokens": ["<image>", "<more>"]}, replace_extra_special_tokens=False)
    renderers = [
        renderer_of(tokenizer),
        renderer_of(tokenizer, "vicuna_v1"),
        renderer_of(tokenizer, max_text_tokens=9),
        renderer_of(tokenizer, max_text_tokens=9, too_long="cut_end"),
        renderer_of(other),
    ]
    assert len({fingerprint(renderer) for renderer in renderers}) == 5
    # an image is one token in the cache, whatever the tower makes of it
    assert fingerprint(renderer_of(tokenizer, image_tokens=576)) == fingerprint(renderers[0])
    assert cache_file(renderers[0], "a", "llava", None) != cache_file(renderers[0], "b", "llava", None)


def test_another_version_of_ours_and_another_day_have_another_cache(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = renderer_of(tokenizer)
    before = fingerprint(renderer)
    dated = renderer_of(tokenizer)
    dated.template = replace(dated.template, jinja=dated.template.jinja + "{# strftime_now #}")
    today = fingerprint(dated)
    monkeypatch.setattr(rendering, "date", SimpleNamespace(today=lambda: "2001-01-01"))
    assert fingerprint(renderer) == before
    assert fingerprint(dated) != today
    monkeypatch.setattr(module, "__version__", "9.9")
    assert fingerprint(renderer) != before


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"", lambda b: b"x" * 40, lambda b: b[:8] + b"{" + b[9:-1]]
)
def test_a_broken_cache_is_said_and_made_anew(tokenizer, samples: list[Sample], damage: Any) -> None:
    first, _, encodings = rendered(samples, renderer_of(tokenizer))
    assert encodings.file
    assert encodings.notes == []
    encodings.file.write_bytes(damage(encodings.file.read_bytes()))
    second, _, again = rendered(samples, renderer_of(tokenizer))
    assert again.known == 0
    assert "could not be read" in again.notes[0]
    assert list(second) == list(first)
    assert rendered(samples, renderer_of(tokenizer))[2].known == len(again)


def test_arrays_that_do_not_fit_are_no_cache(tokenizer, samples: list[Sample]) -> None:
    from safetensors.numpy import load_file, save_file

    _, _, encodings = rendered(samples, renderer_of(tokenizer))
    arrays = load_file(encodings.file)
    save_file(arrays | {"ends": arrays["ends"][::-1].copy()}, encodings.file)
    _, _, again = rendered(samples, renderer_of(tokenizer))
    assert "do not fit together" in again.notes[0]


def test_a_cache_that_cannot_be_written_is_said(
    tokenizer, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kept, _, encodings = rendered(samples, renderer_of(tokenizer))
    assert len(kept) == len(samples)
    assert "could not be written" in encodings.notes[0]


def test_what_was_not_asked_for_leaves_the_cache_when_it_is_written_anew(tokenizer, samples: list[Sample]) -> None:
    _, _, everything = rendered(samples, renderer_of(tokenizer))
    _, _, part = rendered(samples[:3], renderer_of(tokenizer))
    assert part.known == len(everything)
    new = [conversation("new", [], "is there a table?", "no")]
    rendered([*samples[:3], *new], renderer_of(tokenizer))
    kept, _, last = rendered([*samples[:3], *new], renderer_of(tokenizer))
    assert last.known == 4
    assert list(kept) == [renderer_of(tokenizer).render(sample) for sample in [*samples[:3], *new]]


def test_small_sets_leave_no_file(tokenizer, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", len(samples) + 1)
    _, _, encodings = rendered(samples, renderer_of(tokenizer))
    assert encodings.file
    assert not encodings.file.exists()


def test_turns_are_kept_apart_by_their_lengths() -> None:
    def key(*texts: str) -> bytes:
        return module.key_of([Turn("user", text) for text in texts])

    assert key("a", "b") != key("ab")
    assert key("auser1:b") != key("a", "b")
    assert key("x") != module.key_of([Turn("assistant", "x")])


def test_mended_and_left_out_rows_are_counted_apart_from_bad_ones(tokenizer) -> None:
    mended = ("image tag inserted", "leading answer dropped")
    good = [replace(conversation(f"s{n}", [], "is there a cat?", "no"), mended=mended[:n]) for n in range(3)]
    out = [LeftOut("left out: UAV", "x.json, row 4", "says so.")] * 90
    kept, judged = render_all([*good, *out, bad(9)], renderer_of(tokenizer), 0.25)
    assert (judged.read, judged.kept, len(kept)) == (4, 3, 3)
    assert judged.counts("leave out") == {"left out: UAV": 90}
    assert judged.counts("mend") == {"image tag inserted": 2, "leading answer dropped": 1}
    both = judged + judged
    assert both.counts("leave out").total() == 180
    assert both.summary()["mended"] == {"image tag inserted": 4, "leading answer dropped": 2}
    with pytest.raises(DataError, match="no sample was read; 90 rows are left out by options"):
        render_all(out, renderer_of(tokenizer), 1.0)


def test_weights_repeat_a_source_and_draw_a_part_of_it() -> None:
    assert weighted(4, 2.0, 1) == [0, 1, 2, 3] * 2
    half = weighted(100, 0.5, 1)
    assert len(half) == len(set(half)) == 50
    assert half == sorted(half) == weighted(100, 0.5, 1) != weighted(100, 0.5, 2)
    assert weighted(100, 1.5, 1) == [*range(100), *half]
    assert weighted(3, 0.1, 1) == []


def test_a_mixture_and_its_order_are_a_function_of_the_seed(tokenizer, samples: list[Sample]) -> None:
    renderer = renderer_of(tokenizer)
    kept, _ = render_all(samples, renderer, 0.0)
    more, _ = render_all(samples[:4], renderer, 0.0)

    def mixture(seed: int) -> RenderedDataset:
        return RenderedDataset([(kept, weighted(len(kept), 2.0, seed)), (more, weighted(len(more), 0.5, seed))])

    mixed = mixture(1)
    assert len(mixed) == len(list(mixed)) == 2 * len(samples) + 2
    assert Counter(each.id for each in mixed)["a1"] in (2, 3)
    assert mixed.images() == [each.images for each in mixed]
    assert mixed.content_hash() == mixture(1).content_hash()
    assert len({mixture(seed).content_hash() for seed in range(9)}) > 1

    def order(seed: int, epoch: int) -> list[int]:
        sampler = SharedImageSampler(mixed.images(), seed, share_images=True)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert sorted(order(1, 0)) == list(range(len(mixed)))
    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)
    assert len(RenderedDataset([])) == 0


READER = """
from lorgnette.data.sample import Origin, Sample, Turn
from lorgnette.errors import RowError

def birds(spec):
    turns = (Turn("user", spec.options.get("ask", "What?")), Turn("assistant", "A bird."))
    yield Sample("1", (), turns, Origin(spec.path, 0))
    yield RowError("no bird", f"{spec.path}, row 1", "it is a plane.")

def wrong(spec):
    yield Sample("1", (), (Turn("user", None),), Origin(spec.path, 0))

def failing(spec):
    yield from birds(spec)
    raise KeyError("feather")

def leaving(spec):
    yield from birds(spec)
    raise SystemExit(spec)

number = 3
"""


def test_readers_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_birds.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path)
    first, second = read_samples("nest", "my_birds:birds", options={"ask": "Who?"})
    assert first == Sample("1", (), (Turn("user", "Who?"), Turn("assistant", "A bird.")), Origin("nest", 0))
    assert isinstance(second, RowError)
    for name, message in (
        ("wrong", "nest, row 0: the format 'my_birds:wrong' gave Sample"),
        ("failing", r"nest, row 1: the format 'my_birds:failing' raised KeyError\('feather'\)"),
        ("leaving", "nest, row 1: the format 'my_birds:leaving' raised SystemExit"),
        ("number", "is no function"),
        ("none", "my_birds has no 'none'. It has: birds, wrong, failing, leaving"),
    ):
        with pytest.raises(DataError, match=message):
            list(read_samples("nest", f"my_birds:{name}"))
    with pytest.raises(DataError, match="or your own as package"):
        list(read_samples("nest", "birds"))
    del sys.modules["my_birds"]


def test_a_hub_name_is_streamed_by_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name: str, config: str | None, **more: Any) -> Any:
        asked.append((name, config, more))
        if name == "owner/none":
            raise FileNotFoundError("no such set")
        rows = [{"instruction": f"Say {n}.", "output": "да"} for n in range(9)]
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    found = list(read_samples("owner/name", "instruct", "train", limit=2, options={"config": "ru"}))
    assert [str(each.origin) for each in found if isinstance(each, Sample)] == [
        "owner/name/ru/train, row 0",
        "owner/name/ru/train, row 1",
    ]
    assert asked == [("owner/name", "ru", {"split": "train", "streaming": True})]
    with pytest.raises(DataError, match="Next: give `split`"):
        list(read_samples("owner/name", "instruct"))
    with pytest.raises(DataError, match=r"owner/none/train, row 0: .*cannot be read from the hub"):
        list(read_samples("owner/none", "instruct", "train"))
    with pytest.raises(DataError, match="a file has no splits"):
        list(read_samples("owner/name.json", "instruct", "train"))
