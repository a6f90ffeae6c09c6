"""RS-instructions (BigData-KSU/RS-instructions-dataset): LLaVA conversations about remote-sensing images.

`NWPU-RSICD-UAV-UCM-LR-DOTA-intrcutions.json` (spelled so) is a LLaVA list. Its last rows are strays from `ocr_vqa`, and
the UAV images are not public; both are left out unless `leave_out` says otherwise, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lorgnette.data.readers.llava import llava_variants, read_llava
from lorgnette.data.readers.source import SourceSpec
from lorgnette.data.sample import Sample
from lorgnette.errors import DataError

LEFT_OUT = ("ocr_vqa", "UAV")


def read_rs_instructions(spec: SourceSpec) -> Iterator[Sample | DataError]:
    """Yield one conversation a sample, as `read_llava` with `leave_out: [ocr_vqa, UAV]`.

    Raises:
        DataError: as `read_llava`.
    """
    return read_llava(_cleaned(spec))


def rs_instructions_variants(spec: SourceSpec) -> Iterator[str]:
    """Yield for every row which variant it is, as `llava_variants`."""
    return llava_variants(_cleaned(spec))


def _cleaned(spec: SourceSpec) -> SourceSpec:
    return replace(spec, options={"leave_out": LEFT_OUT} | dict(spec.options))
