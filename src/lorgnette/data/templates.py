"""Chat templates: the tokenizer's own or one of ours, and where an answer ends in them.

Ours are Jinja texts like the tokenizer's, so that a model folder can carry either. The conversations
are those of LLaVA (llava/conversation.py) and XTuner (xtuner/utils/templates.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lorgnette.data.sample import IMAGE_TAG, Turn
from lorgnette.errors import DataError, ModelError, nearest


class NamedTemplate(NamedTuple):
    """A chat template of ours: its Jinja text, and what the model must say to end a turn."""

    jinja: str
    end_of_turn: str | None  # None: the tokenizer's eos_token


def _vicuna(listener: str) -> str:
    return (
        f"{{% set system = 'A chat between a curious {listener} and an artificial intelligence assistant. The "
        f"assistant gives helpful, detailed, and polite answers to the {listener}\\'s questions.' %}}"
        "{% if messages and messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif %}"
        "{{ system + ' ' }}"
        "{% for message in messages %}"
        "{% if message.role == 'user' %}{{ 'USER: ' + message.content + ' ASSISTANT:' }}"
        "{% elif message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}{% endif %}"
        "{% endfor %}"
    )


def _chatml(default_system: str = "", start: str = "") -> str:
    default = (
        "{% if not messages or messages[0].role != 'system' %}"
        f"{{{{ '<|im_start|>system\\n{default_system}<|im_end|>\\n' }}}}{{% endif %}}"
        if default_system
        else ""
    )
    return (
        f"{start}{default}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


_GEMMA = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' "
    "+ message.content | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)

# LLaVA's projector pre-training: the question is left out, the caption follows the image.
_PLAIN = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '<image>' * message.content.count('<image>') }}"
    "{% elif message.role == 'assistant' %}{{ message.content + '\\n' }}{% endif %}"
    "{% endfor %}"
)

# Turns a content that is a list of parts into the text that we train with: images first, each on a line of its own,
# unless the text places them itself. The line break at the end is the one that Jinja drops after a block here.
_PARTS_TO_TEXT = (
    "{% set told = namespace(messages=[]) %}"
    "{% for message in messages %}"
    "{% if message.content is string or message.content is none %}"
    "{% set told.messages = told.messages + [message] %}"
    "{% else %}"
    "{% set text = message.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\n') %}"
    "{% set images = message.content | selectattr('type', 'equalto', 'image') | list | length %}"
    "{% if '<image>' not in text %}{% set text = '<image>\n' * images + text %}{% endif %}"
    "{% set told.messages = told.messages + [{'role': message.role, 'content': text}] %}"
    "{% endif %}"
    "{% endfor %}"
    "{% set messages = told.messages %}\n"
)

TEMPLATES: Mapping[str, NamedTemplate] = {
    "vicuna_v1": NamedTemplate(_vicuna("user"), None),
    "llava_v1": NamedTemplate(_vicuna("human"), None),
    "chatml": NamedTemplate(_chatml(), "<|im_end|>"),
    "qwen1.5": NamedTemplate(_chatml("You are a helpful assistant"), "<|im_end|>"),
    "internlm2": NamedTemplate(_chatml(start="{{ bos_token }}"), "<|im_end|>"),
    "gemma": NamedTemplate(_GEMMA, "<end_of_turn>"),
    "plain": NamedTemplate(_PLAIN, "\n"),
}


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template bound to a tokenizer.

    Attributes:
        name: a key of `TEMPLATES`, or "tokenizer" for the tokenizer's own.
        jinja: the template's text.
        end_of_turn: what ends an answer; it is supervised together with the answer.
    """

    tokenizer: Any
    name: str
    jinja: str
    end_of_turn: str

    def render(self, turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> str:
        """Render turns to text. The text has no beginning-of-sequence token unless the template writes one.

        Raises:
            DataError: if the template refuses the conversation (Gemma's refuses system turns, for example).
        """
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            text = str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.jinja,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                )
            )
            text.encode()  # half of a surrogate pair, which Jinja can write, is no text for a tokenizer
        except Exception as error:  # a template is a program from outside, and can divide by zero like any other
            reason = str(error) or type(error).__name__
            raise DataError(f"the chat template '{self.name}' refuses the conversation: {reason}") from error
        return text


def chat_template(tokenizer: Any, name: str | None = None) -> ChatTemplate:
    """Bind a named template, or the tokenizer's own where `name` is None, and check that it can be trained with.

    Raises:
        ModelError: if the name is unknown, the tokenizer has no template, or the template fails or has no end of turn
            that is a special token (a model trained with it would never learn to stop).
    """
    require_template(name)
    if name is not None:
        named = TEMPLATES[name]
        end = tokenizer.eos_token if named.end_of_turn is None else named.end_of_turn
        template = ChatTemplate(tokenizer, name, named.jinja, end)
        if end is None or (name != "plain" and len(_special_ids(tokenizer, end)) != 1):
            raise ModelError(
                f"chat_template '{name}' ends a turn with {end!r}, which is no special token of this tokenizer. "
                f"Next: choose another of {', '.join(TEMPLATES)}, or null for the tokenizer's own."
            )
        return template
    if not tokenizer.chat_template:
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has no chat template. Next: name one in the recipe, "
            f"model.chat_template: {' | '.join(TEMPLATES)}"
        )
    if not isinstance(tokenizer.chat_template, str):
        raise ModelError(
            f"{tokenizer.name_or_path}: the tokenizer has several chat templates "
            f"({', '.join(tokenizer.chat_template)}). Next: keep one, or name one of {', '.join(TEMPLATES)}."
        )
    own = ChatTemplate(tokenizer, "tokenizer", tokenizer.chat_template, "")
    try:
        end = _find_end_of_turn(own)
    except DataError as error:
        raise ModelError(
            f"{tokenizer.name_or_path}: {error}. Next: mend its chat template, or name one of "
            f"{', '.join(TEMPLATES)} as model.chat_template."
        ) from error
    return ChatTemplate(tokenizer, "tokenizer", tokenizer.chat_template, end)


def set_template(tokenizer: Any, name: str) -> None:
    """Give a tokenizer a named template in place of its own.

    Raises:
        ModelError: as `chat_template`.
    """
    tokenizer.chat_template = chat_template(tokenizer, name).jinja


def taking_parts(tokenizer: Any, jinja: str) -> str:
    """Let a template that takes texts take lists of parts too, as transformers' processors give them.

    What it makes of texts stays the same, and a list becomes what the same text with image tags becomes. A template
    that does so already, or takes no texts, is returned as it is.
    """
    parts = [{"type": "text", "text": "lorgnette"}, {"type": "image"}]
    try:
        expected = _told(tokenizer, jinja, f"{IMAGE_TAG}\nlorgnette")
    except Exception:  # a template is a program from outside
        return jinja
    try:
        if expected.count(IMAGE_TAG) != 1 or _told(tokenizer, jinja, parts) == expected:
            return jinja
    except Exception:  # it takes no parts
        pass
    return _PARTS_TO_TEXT + jinja


def named_like(jinja: str) -> str | None:
    """Return the name of the template of ours that a text is, None if it is another."""
    texts = (jinja, jinja.removeprefix(_PARTS_TO_TEXT))
    return next((name for name, named in TEMPLATES.items() if named.jinja in texts), None)


def _told(tokenizer: Any, jinja: str, content: Any) -> str:
    messages = [{"role": "user", "content": content}]
    return str(tokenizer.apply_chat_template(messages, chat_template=jinja, tokenize=False))


def require_template(name: str | None) -> None:
    """Check that a template of this name exists; None stands for the tokenizer's own.

    Raises:
        ModelError: naming the nearest one.
    """
    if name is not None and name not in TEMPLATES:
        raise ModelError(
            f"chat_template: there is no template '{name}'. Allowed: {', '.join(TEMPLATES)}, or null for the "
            f"tokenizer's own.{nearest(name, TEMPLATES)}"
        )


def stop_ids(template: ChatTemplate) -> frozenset[int]:
    """Return the token ids that end an answer: the last token of the end of turn, and the tokenizer's eos."""
    ids = template.tokenizer(template.end_of_turn, add_special_tokens=False)["input_ids"]
    eos = template.tokenizer.eos_token_id
    return frozenset(ids[-1:]) | (frozenset() if eos is None else frozenset([eos]))


def _special_ids(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return [i for i in ids if i in special]


def _find_end_of_turn(template: ChatTemplate) -> str:
    """Find what follows an answer wherever it stands: last in the conversation, or followed by a question.

    Some templates write more after the very last answer (Phi-3's `<|endoftext|>`), so only what both places have in
    common is the end of a turn.
    """
    question, answer = Turn("user", "Lorgnette asks"), Turn("assistant", "lorgnette answers")
    tails = []
    for turns in ((question, answer), (question, answer, question)):
        text = template.render(turns)
        if answer.text not in text:
            raise ModelError(
                "the tokenizer's chat template leaves out the text of an answer (does it want lists of content "
                f"parts?). Next: name one of {', '.join(TEMPLATES)} as model.chat_template."
            )
        tails.append(text.split(answer.text, 1)[1])
    common = os.path.commonprefix(tails)
    encoded = template.tokenizer(common, add_special_tokens=False, return_offsets_mapping=True)
    special = set(template.tokenizer.all_special_ids) | set(template.tokenizer.added_tokens_decoder)
    spans = [span for i, span in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True) if i in special]
    if not spans or common[: spans[0][0]].strip():
        raise ModelError(
            f"the tokenizer's chat template ends an answer with {common!r}, which does not begin with a special "
            "token: a model trained with it would never learn to stop. Next: name one of "
            f"{', '.join(TEMPLATES)} as model.chat_template."
        )
    return common[slice(*spans[0])]
