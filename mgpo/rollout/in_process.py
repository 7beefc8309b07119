"""The in-process sampler: rollouts on the policy's own weights, nothing encoded twice.

A question's prompt passes the model once, and its cache serves all of the group's rollouts; a later
turn continues on the same cache. The cache may have holes (padding, rows that ended earlier): they
are masked, and positions are counted per row, so a row's result does not depend on its neighbours.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgpo.policy.base import Policy
from mgpo.policy.decoding.cuda_graphs import Steps
from mgpo.rollout.draws import Sampling, choose, uniform
from mgpo.types import Prompt, Reply, Stop, Trajectory

TAIL = 16  # tokens decoded to look for a stop text that has no more bytes


class InProcessSampler:
    """Opens conversations on the policy's own weights."""

    exact = True
    in_process = True

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> "Conversation":
        """Show each prompt once; its cache serves `copies` rows, which lie next to each other."""
        return Conversation(policy, prompts, copies)

    def prepare(self, policy: Policy) -> None:
        """The weights are the policy's own."""

    def run(self, policy: Policy, job: Callable[[], list[Trajectory]]) -> list[Trajectory]:
        """Have a step's rollouts played, now."""
        return job()

    def release(self) -> None:
        """There is nothing to give back."""


class Conversation:
    """A batch of open conversations: `reply`, then `extend` with what is shown next, and so on.

    Rows lie in slots. While a reply is sampled, those that end are exchanged with the last that go on, so that every
    pass is over the first slots alone; `order` says which row is in which slot.
    """

    @torch.no_grad()
    def __init__(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> None:
        self.policy, self.cache = policy, policy.new_row_cache()
        rows = len(prompts)
        self.order = list(range(rows))
        self.next_N = [0] * rows
        self.pending: list[tuple[int, ...]] = [()] * rows
        self.extend(prompts)
        if copies > 1:
            self._select(self.cache.fork, [row for row in range(rows) for _ in range(copies)])

    @torch.no_grad()
    def extend(self, prompts: Sequence[Prompt]) -> None:
        """Show every row its next prompt, behind its last sampled token."""
        policy = self.policy
        self.keep(range(len(prompts)))
        shown = [Prompt((*last, *p.ids), p.images) for last, p in zip(self.pending, prompts, strict=True)]
        placed = [policy.positions(prompt, start) for prompt, start in zip(shown, self.next_N)]
        self.next_N = [follows for _, follows in placed]
        ids_NT = pad_sequence([torch.tensor(p.ids) for p in shown], True, policy.pad_id).to(policy.device)
        lengths_N = torch.tensor([len(p.ids) for p in shown], device=policy.device)
        new_NT = torch.arange(ids_NT.shape[1], device=policy.device) < lengths_N[:, None]
        positions = pad_sequence([p.T for p, _ in placed], True, 0).permute(2, 0, 1).to(policy.device)
        images = [image for prompt in prompts for image in prompt.images]
        features = policy.features(images) if images else None
        hidden_NTD = policy.decode(ids_NT, features, positions, self.cache.extend(new_NT), self.cache)
        self.last_ND = hidden_NTD[torch.arange(len(shown), device=policy.device), lengths_N - 1]
        self.pending = [()] * len(shown)

    def begin(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> "Conversation":
        """New conversations, one a prompt, with a cache of their own; a row's past says nothing of them."""
        return Conversation(self.policy, prompts, 1)

    def take(self, replies: Sequence[Reply]) -> None:
        """Take these replies, a row each, as if they had been sampled; the model sees them with the next prompt."""
        self.keep(range(len(replies)))
        self.pending = [reply.ids for reply in replies]

    @torch.no_grad()
    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Sample a reply in every row, until its end-of-turn token, the stop text, or the limit.

        Yields (row, reply) as rows end; all of them have to be taken before anything else is asked.

        `seeds` holds one seed a row: a row's reply depends on its own seed and history only.
        """
        policy, device = self.policy, self.policy.device
        self.keep(range(len(seeds)))
        uniform_NT = uniform(seeds, sampling).to(device)
        position_N = torch.tensor(self.next_N, device=device)
        enders = policy.enders(stop_text)
        drawn: list[_Drawn] = [_Drawn() for _ in seeds]  # of each row
        steps = Steps(self._pass, len(seeds), device) if self.cache.static else None
        hidden_ND, going = self.last_ND, len(seeds)
        for step in range(sampling.max_new_tokens):
            id_N, logprob_N = choose(policy.logits(hidden_ND), uniform_NT[:, step], sampling)
            ended, goes_on = [], [True] * going
            for slot, (sampled, logprob) in enumerate(_to_host(id_N, logprob_N)):
                row = self.order[slot]
                drawn[row].add(sampled, logprob)
                if sampled in enders and (stop := self._stop(drawn[row].ids, stop_text)):
                    ended.append((row, drawn[row].reply(stop)))
                    goes_on[slot] = False
            if ended:
                slot_N = torch.tensor(self._set_aside(goes_on), dtype=torch.long, device=device)
                uniform_NT, position_N, id_N = uniform_NT[slot_N], position_N[slot_N], id_N[slot_N]
                going = len(slot_N)
            if going and step + 1 < sampling.max_new_tokens:
                hidden_ND = self._feed(id_N, position_N + step, steps)
            yield from ended  # while a GPU works
            if not going:
                break
        yield from [(row, drawn[row].reply("length")) for row in self.order[:going]]
        self.pending = [tuple(row.ids[-1:]) for row in drawn]  # sampled, but not yet seen by the model
        self.next_N = [start + len(row.ids) - 1 for start, row in zip(self.next_N, drawn)]

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these, and put them into order."""
        slots = {row: slot for slot, row in enumerate(self.order)}
        if [slots[row] for row in rows] != list(range(len(self.order))):
            self._select(self.cache.select, [slots[row] for row in rows], rows)

    def _select(self, select: Callable[[list[int]], None], slots: list[int], rows: Sequence[int] | None = None) -> None:
        select(slots)
        rows = slots if rows is None else rows
        self.last_ND = self.last_ND[torch.tensor(slots, dtype=torch.long, device=self.policy.device)]
        self.next_N, self.pending = [self.next_N[i] for i in rows], [self.pending[i] for i in rows]
        self.order = list(range(len(slots)))

    def _set_aside(self, goes_on: list[bool]) -> list[int]:
        """Exchange rows that have ended with later ones that go on; in which slots those were that now go on."""
        going = sum(goes_on)
        ended = [slot for slot in range(going) if not goes_on[slot]]
        later = [slot for slot in range(going, len(goes_on)) if goes_on[slot]]
        slots = list(range(len(self.order)))
        if ended:
            self.cache.swap(ended, later)
            for i, j in zip(ended, later):
                self.order[i], self.order[j] = self.order[j], self.order[i]
                slots[i] = j
        return slots[:going]

    def _feed(self, id_N: Tensor, position_N: Tensor, steps: Steps | None) -> Tensor:
        """Pass one sampled token in each of the first slots; (N, D)."""
        if steps is None:
            self.cache.step(len(id_N), len(id_N))
            return self._pass(id_N, position_N)
        self.cache.step(len(id_N), steps.size(len(id_N)))
        return steps(id_N, position_N, self.cache.width)

    def _pass(self, id_N: Tensor, position_N: Tensor) -> Tensor:
        mask, position_3N1 = self.cache.step_mask(len(id_N)), position_N.expand(3, -1)[..., None]
        return self.policy.decode(id_N[:, None], None, position_3N1, mask, self.cache)[:, 0]

    def _stop(self, ids: list[int], stop_text: str | None) -> Stop | None:
        if ids[-1] == self.policy.chat.end_id:
            return "end"
        return "marker" if stop_text and stop_text in self.policy.chat.decode(ids[-tail_of(stop_text) :]) else None


def tail_of(stop_text: str) -> int:
    """How many of a reply's last tokens may hold it: each has a byte of it at least."""
    return max(TAIL, len(stop_text.encode()))


class _Drawn:
    """What was sampled in a row."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.logprobs: list[float] = []

    def add(self, sampled: int, logprob: float) -> None:
        self.ids.append(sampled)
        self.logprobs.append(logprob)

    def reply(self, stop: Stop) -> Reply:
        return Reply(tuple(self.ids), tuple(self.logprobs), stop)


def _to_host(id_N: Tensor, logprob_N: Tensor) -> Iterator[tuple[int, float]]:
    """In one transfer: it waits for the device."""
    for sampled, logprob in zip(*torch.stack([id_N.double(), logprob_N.double()]).tolist()):
        yield int(sampled), logprob
