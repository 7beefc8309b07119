"""What a choice of the OpenAI protocol says: its text and log-probs, or why there is no text."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mgpo.answers.thoughts import spoken
from mgpo.inference.client import ChatClient, NoReply, shown
from mgpo.types import Reply, Stop

FENCE = "```"
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")  # where servers put them
NO_THINKING = "extra: {chat_template_kwargs: {enable_thinking: false}}"
LEAST = -1e6  # log-probs below this are no log-probs
Read = TypeVar("Read")


def ask(
    client: ChatClient,
    body: Mapping[str, Any],
    extra: Mapping[str, Any],
    read: Callable[[Mapping[str, Any]], Read],
    stop_text: str | None = None,
) -> Read:
    """What `read` finds in the first choice of a completion.

    Args:
        client: Of the server.
        body: The request; what is None is left out.
        extra: Put into it; null takes a key out.
        read: Raises LookupError, TypeError, ValueError, AttributeError or OverflowError for another form.
        stop_text: Where the reply ends.

    Raises:
        NoReply: Where there is none, with the reason.
    """
    sent = {name: value for name, value in {**body, **extra}.items() if value is not None}
    answer = client.request("/chat/completions", sent)
    try:
        choice = first_choice(answer, client.key)
        why, found = silence(choice, body["max_tokens"], stop_text), read(choice)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        raise NoReply("the reply is not of the protocol's form") from None
    if why is not None:
        raise NoReply(why)
    return found


def first_choice(answer: Mapping[str, Any], key: str | None) -> Mapping[str, Any]:
    """The first choice of what a server answers.

    Raises:
        NoReply: If the answer is an error, which some gateways send under the code 200.
        LookupError, TypeError: If it is not of the protocol's form.
    """
    if not answer.get("choices") and (error := answer.get("error")):
        said = error.get("message", "") if isinstance(error, dict) else error
        raise NoReply(f"the server answers with an error: {shown(said, key)}")
    return answer["choices"][0]


def read_reply(choice: Mapping[str, Any], stop_text: str | None) -> tuple[str, Reply]:
    """The text of a choice, the stop text included, and what there is to know of its tokens.

    Servers cut the stop text off. vLLM and SGLang tell what they stopped at; where a server does not, a
    reply that ends inside a fenced block had it.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, OverflowError: If it is not of the protocol's form.
    """
    text = content(choice)
    stop: Stop = "length" if choice.get("finish_reason") == "length" else "end"
    if stop_text is not None and stop != "length":
        said = spoken(text)
        told = _told(choice)
        cut = stop_text in told if told else FENCE in stop_text and said.count(FENCE) % 2 == 1
        if cut and not text.endswith(stop_text):
            text += stop_text
        stop = "marker" if text.endswith(stop_text) else "end"
    return text, Reply((), _logprobs(choice), stop)


def silence(choice: Mapping[str, Any], limit: int, stop_text: str | None) -> str | None:
    """Why a choice says nothing, and what to do about it; None where it says something."""
    text, message, end = content(choice), choice["message"], choice.get("finish_reason")
    if spoken(text).strip():
        return None
    if message.get("tool_calls") or message.get("function_call"):
        return "the reply calls a tool and has no text; serve the model without tools"
    if message.get("refusal"):
        return f"the model refuses to answer: {shown(message['refusal'])}"
    if end == "content_filter":
        return "the server's filter withheld the reply"
    thought = text.strip() or any(message.get(name) for name in THOUGHTS)
    if end == "length" and thought:
        return (
            f"the reply was cut at {limit} tokens, in the middle of the model's thoughts; raise max_new_tokens, "
            f"or turn thinking off with {NO_THINKING}"
        )
    if end == "length":
        return f"the reply was cut at {limit} tokens, before any text; raise max_new_tokens"
    if thought and stop_text is not None and stop_text in _told(choice):
        return f"the text that ends this turn stood in the model's thoughts; turn thinking off with {NO_THINKING}"
    if thought:
        return (
            f"the reply is all thought and no text; turn thinking off with {NO_THINKING}, and if it is off already, "
            "serve the model without a reasoning parser"
        )
    return f"the reply is empty (finish_reason: {shown(end)}); the server's log may say why"


def content(choice: Mapping[str, Any]) -> str:
    """The text of a choice as it was sent: a string, nothing, or parts of which some are texts."""
    sent = choice["message"].get("content")
    if isinstance(sent, list):
        sent = "".join(part["text"] for part in sent if part.get("type", "text") in ("text", "output_text"))
    if not isinstance(sent, str | None):
        raise TypeError("a text is needed")
    return sent or ""


def _told(choice: Mapping[str, Any]) -> list[Any]:
    """What the server says that it stopped at; nothing where it does not say."""
    return [choice[name] for name in ("stop_reason", "matched_stop") if name in choice]


def _logprobs(choice: Mapping[str, Any]) -> tuple[float, ...]:
    """Those of the sampled tokens; none where one of them is no number that a log-prob can be."""
    tokens = (choice.get("logprobs") or {}).get("content") or []
    logprobs = tuple(float(token["logprob"]) for token in tokens)
    return logprobs if all(math.isfinite(value) and value > LEAST for value in logprobs) else ()
