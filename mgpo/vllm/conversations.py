"""Conversations with an engine, which is sent each from its beginning in every turn."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from mgpo.policy.families.qwen import QwenVL
from mgpo.policy.features import BESIDE, portions
from mgpo.rollout.in_process import Sampling, tail_of
from mgpo.types import Pixels, Prompt, Reply, Stop
from mgpo.vllm.requests import Drawn, Engine, Request, place_images


class EngineConversations:
    """A batch of open conversations. The engine's prefix cache makes it cheap to send each from its beginning."""

    def __init__(
        self,
        engine: Engine,
        policy: QwenVL,
        prompts: Sequence[Prompt],
        copies: int,
        numbers: Iterator[int],
        banned: frozenset[int],
        seen: bool = False,
    ) -> None:
        self.engine, self.policy, self.numbers, self.banned, self.seen = engine, policy, numbers, banned, seen
        self.histories = [prompt for prompt in prompts for _ in range(copies)]
        self.named: dict[Pixels, str] = {}
        self.cached: list[int] = []  # by row: tokens of the last history that were not passed again

    def extend(self, prompts: Sequence[Prompt]) -> None:
        """Add the next prompt of every row to its history."""
        self.histories = [_joined(history, p.ids, p.images) for history, p in zip(self.histories, prompts, strict=True)]

    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Sample a reply in every row, until its end-of-turn token, the stop text, or the limit: (row, reply).

        `seeds` holds one seed a row: the same seed behind the same history gives the same reply.

        Raises:
            ValueError: If a history's placeholders don't match its images.
            RuntimeError: If the engine samples a banned token, or stops for no reason that is known here.
        """
        if self.seen:
            self._look()
        requests = [self._request(history, seed) for history, seed in zip(self.histories, seeds, strict=True)]
        self.cached = [0] * len(requests)
        for row, drawn in self.engine.sample(requests, sampling, stop_text):
            reply = self._reply(drawn, sampling, stop_text)
            self.histories[row] = _joined(self.histories[row], reply.ids)
            self.cached[row] = drawn.cached
            yield row, reply

    def take(self, replies: Sequence[Reply]) -> None:
        """Add these replies, a row each, to the histories, as if the engine had sampled them."""
        self.histories = [_joined(history, reply.ids) for history, reply in zip(self.histories, replies, strict=True)]

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these."""
        self.histories = [self.histories[i] for i in rows]

    def begin(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> "EngineConversations":
        """New conversations, one a prompt, under the same weights; a row's history says nothing of them."""
        return EngineConversations(self.engine, self.policy, prompts, 1, self.numbers, self.banned, self.seen)

    @torch.no_grad()
    def _look(self) -> None:
        """Pass what is new through the trainer's tower, which keeps what it saw."""
        shown = (image for history in self.histories for image in history.images)
        new = [image for image in dict.fromkeys(shown) if image not in self.policy.seen.kept]
        for part in portions(new, BESIDE):
            self.policy.features(part)

    def _request(self, history: Prompt, seed: int) -> Request:
        images = place_images(history, self.policy.chat.image_id, self._tokens, self._name)
        if self.seen:
            images = (replace(image, features=self.policy.seen.kept[image.pixels]) for image in images)
        return Request(history.ids, tuple(images), seed)

    def _tokens(self, pixels: Pixels) -> int:
        return self.policy.expand(pixels).count(self.policy.image_token)

    def _name(self, pixels: Pixels) -> str:
        if pixels not in self.named:
            self.named[pixels] = str(next(self.numbers))
        return self.named[pixels]

    def _reply(self, drawn: Drawn, sampling: Sampling, stop_text: str | None) -> Reply:
        if not self.banned.isdisjoint(drawn.ids):
            raise RuntimeError("the engine sampled a token that is banned")
        length, stop = reply_end(self.policy, drawn.ids, stop_text)
        if stop == "length" and length < sampling.max_new_tokens:
            raise RuntimeError(f"the engine stopped after {length} tokens, for no reason that is known here")
        return Reply(drawn.ids[:length], drawn.logprobs[:length], stop)


def reply_end(policy: QwenVL, ids: Sequence[int], stop_text: str | None) -> tuple[int, Stop]:
    """Where a reply ends and why, by the rule of the in-process sampler: behind the token that completes the text.

    An engine that decodes as it goes may hold back a text whose last character is incomplete, and stop later.
    """
    for count, token in enumerate(ids, 1):
        if token == policy.chat.end_id:
            return count, "end"
        if stop_text and stop_text[-1] in policy.token_texts[token]:
            tail = ids[max(0, count - tail_of(stop_text)) : count]
            if stop_text in policy.chat.decode(tail):
                return count, "marker"
    return len(ids), "length"


def _joined(history: Prompt, ids: tuple[int, ...], images: tuple[Pixels, ...] = ()) -> Prompt:
    return Prompt(history.ids + ids, history.images + images)
