"""A prompt is data: a text with fields that every document fills."""

from __future__ import annotations

import re

from lorgnette.data.sample import IMAGE_TAG
from lorgnette.errors import DataError, nearest
from lorgnette.evaluation.tasks.task import Document, is_unicode

FIELD = re.compile(r"\{([A-Za-z_][A-Za-z_0-9]*)\}(\s*)")


def fill(prompt: str, document: Document) -> str:
    """Put a document's texts into a prompt.

    An empty field takes the white space after it along, so that `{hint} {question}` is the question alone where there
    is no hint. Braces around anything but a name are text, and so is whatever a document brings.

    Raises:
        DataError: if the prompt names a field that the document does not have, cannot be tokenised, or an image tag
            comes from a text.
    """
    fields = {"question": document.question, **document.fields}

    def text_of(found: re.Match[str]) -> str:
        name, space = found.groups()
        if name not in fields:
            raise DataError(
                f"document {document.id}: the prompt names {{{name}}}. Allowed: "
                f"{', '.join(f'{{{field}}}' for field in fields)}.{nearest(name, fields)}"
            )
        return fields[name] + space if fields[name] else ""

    text = FIELD.sub(text_of, prompt)
    if not is_unicode(text):
        raise DataError(f"document {document.id}: the prompt holds half of a surrogate pair, which is no character.")
    if IMAGE_TAG in text:
        raise DataError(
            f"document {document.id}: the prompt or question holds {IMAGE_TAG}, which stands for an image; images go "
            "before the text by themselves. Next: take it out."
        )
    return text
