"""The in-process sampler: rollouts on the policy's own weights, nothing encoded twice.

A question's prompt passes the model once and its cache is copied to the group's rollouts; a later
turn continues on the same cache. The cache may have holes (padding, rows that ended earlier): they
are masked, and positions are counted per row, so a row's result does not depend on its neighbours.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgpo.errors import UserError
from mgpo.policy.base import Policy
from mgpo.types import Prompt, Reply, Stop, Trajectory

TAIL = 16  # tokens decoded to look for a stop text; no stop text is longer


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn.

    Args:
        max_new_tokens: A reply is cut here.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Draw among the likeliest tokens that hold this much of the probability.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1:
            raise UserError(f"sampling needs temperature >= 0, 0 < top_p <= 1, max_new_tokens >= 1, not {self}")


class InProcessSampler:
    """Opens conversations on the policy's own weights."""

    exact = True

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
        self.valid_NS = torch.zeros(rows, 0, dtype=torch.bool, device=policy.device)
        self.order = list(range(rows))
        self.next_N = [0] * rows
        self.pending: list[tuple[int, ...]] = [()] * rows
        self.extend(prompts)
        if copies > 1:
            each = [row for row in range(rows) for _ in range(copies)]
            self._select(each)
            self.next_N, self.pending = [self.next_N[row] for row in each], [()] * len(each)

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
        mask = _behind(self.valid_NS, ids_NT.shape[1]) if self.valid_NS.shape[1] else None
        hidden_NTD = policy.decode(ids_NT, features, positions, mask, self.cache)
        self.valid_NS = torch.cat([self.valid_NS, new_NT], 1)
        self.last_ND = hidden_NTD[torch.arange(len(shown), device=policy.device), lengths_N - 1]
        self.pending = [()] * len(shown)

    @torch.no_grad()
    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """Sample a reply in every row, until its end-of-turn token, the stop text, or the limit.

        Yields (row, reply) as rows end; all of them have to be taken before anything else is asked.

        `seeds` holds one seed a row: a row's reply depends on its own seed and history only.
        """
        policy, device, limit = self.policy, self.policy.device, sampling.max_new_tokens
        self.keep(range(len(seeds)))
        rows = len(seeds)
        uniform_NT = _uniform(seeds, sampling).to(device)
        start_N = torch.tensor(self.next_N, device=device)
        ids_NT = torch.zeros(rows, limit, dtype=torch.long, device=device)
        logprobs_NT = torch.zeros(rows, limit, device=device)
        seen = self.valid_NS.shape[1]
        self.valid_NS = torch.cat([self.valid_NS, self.valid_NS.new_zeros(rows, limit - 1)], 1)
        ender_V = self._enders(stop_text)
        replies: dict[int, Reply] = {}
        slot_N = torch.arange(rows, device=device)  # the rows that go on
        hidden_ND = self.last_ND
        for step in range(limit):
            if step:
                hidden_ND = self._feed(ids_NT[slot_N, step - 1], start_N[slot_N] + step - 1, seen + step)
            id_N, logprob_N = choose(policy.logits(hidden_ND), uniform_NT[slot_N, step], sampling)
            ids_NT[slot_N, step], logprobs_NT[slot_N, step] = id_N, logprob_N
            goes_on = [True] * len(slot_N)
            for slot in ender_V[id_N].nonzero().flatten().tolist():
                row, sampled = self.order[slot], int(id_N[slot])
                if sampled == policy.chat.end_id or self._has_stop(ids_NT[row, : step + 1], stop_text):
                    goes_on[slot] = False
                    stop = "end" if sampled == policy.chat.end_id else "marker"
                    replies[row] = _reply(ids_NT[row, : step + 1], logprobs_NT[row, : step + 1], stop)
                    yield row, replies[row]
            if not all(goes_on):
                going = self._set_aside(goes_on)
                slot_N = torch.tensor(self.order[:going], device=device)
            if not len(slot_N):
                break
        self.valid_NS = self.valid_NS[:, : seen + step]
        for row in slot_N.tolist():
            replies[row] = _reply(ids_NT[row], logprobs_NT[row], "length")
            yield row, replies[row]
        self.pending = [replies[row].ids[-1:] for row in range(rows)]  # sampled, but not yet seen by the model
        self.next_N = [start + len(replies[row].ids) - 1 for row, start in enumerate(self.next_N)]

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all rows but these, and put them into order."""
        slots = {row: slot for slot, row in enumerate(self.order)}
        if [slots[row] for row in rows] != list(range(len(self.order))):
            self._select([slots[row] for row in rows])
            self.next_N, self.pending = [self.next_N[i] for i in rows], [self.pending[i] for i in rows]

    def _select(self, slots: list[int]) -> None:
        chosen = torch.tensor(slots, dtype=torch.long, device=self.policy.device)
        self.cache.select(chosen)
        self.valid_NS, self.last_ND = self.valid_NS[chosen], self.last_ND[chosen]
        self.order = list(range(len(slots)))

    def _set_aside(self, goes_on: list[bool]) -> int:
        """Exchange rows that have ended with later ones that go on; how many go on."""
        going = sum(goes_on)
        ended = [slot for slot in range(going) if not goes_on[slot]]
        later = [slot for slot in range(going, len(goes_on)) if goes_on[slot]]
        if ended:
            a, b = (torch.tensor(slots, device=self.policy.device) for slots in (ended, later))
            self.cache.swap(a, b)
            self.valid_NS[torch.cat([a, b])] = self.valid_NS[torch.cat([b, a])]
            for i, j in zip(ended, later):
                self.order[i], self.order[j] = self.order[j], self.order[i]
        return going

    def _feed(self, id_N: Tensor, position_N: Tensor, end: int) -> Tensor:
        """Pass one sampled token in each of the first slots; in the others it leaves a hole in the cache."""
        self.valid_NS[: len(id_N), end - 1] = True
        mask = self.valid_NS[: len(id_N), None, None, :end]
        position_3N1 = position_N.expand(3, -1)[..., None]
        return self.policy.decode(id_N[:, None], None, position_3N1, mask, self.cache)[:, 0]

    def _enders(self, stop_text: str | None) -> Tensor:
        """(vocabulary,): ids after which a row may have ended; only these are looked at in Python."""
        held = self.policy.holding(stop_text[-1]) if stop_text else torch.zeros_like(self.policy.banned)
        enders = held.clone()
        enders[self.policy.chat.end_id] = True
        return enders

    def _has_stop(self, ids_T: Tensor, stop_text: str | None) -> bool:
        return stop_text is not None and stop_text in self.policy.chat.decode(ids_T[-TAIL:].tolist())


def _reply(ids_T: Tensor, logprobs_T: Tensor, stop: Stop) -> Reply:
    return Reply(tuple(ids_T.tolist()), tuple(logprobs_T.tolist()), stop)


def _behind(valid_NS: Tensor, width: int) -> Tensor:
    """(N, 1, T, S + T): every new token sees its row's valid past and itself causally."""
    causal = torch.ones(width, width, dtype=torch.bool, device=valid_NS.device).tril()
    past = valid_NS[:, None, :].expand(-1, width, -1)
    return torch.cat([past, causal.expand(len(valid_NS), -1, -1)], -1)[:, None]


def choose(logits_NV: Tensor, uniform_N: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Ids drawn by inverting the cumulative distribution, and their log-probs under temperature, before top-p."""
    logprobs_NV = logits_NV / (sampling.temperature or 1.0)
    logprobs_NV = logprobs_NV - logprobs_NV.logsumexp(-1, keepdim=True)  # `log_softmax` loses a wide vocabulary's tail
    if sampling.temperature == 0:
        id_N = logprobs_NV.argmax(-1)
    else:
        probs_NV = logprobs_NV.exp()
        if sampling.top_p < 1:
            probs_NV = _nucleus(probs_NV, sampling.top_p)
        cdf_NV = probs_NV.cumsum(-1, dtype=torch.double)
        id_N = torch.searchsorted(cdf_NV, uniform_N[:, None].double() * cdf_NV[:, -1:], right=True).squeeze(-1)
        id_N = id_N.where(id_N < len(logits_NV[0]), 0)  # only NaN leads out of the vocabulary; its log-prob is NaN too
    return id_N, logprobs_NV.gather(-1, id_N[:, None]).squeeze(-1)


def _nucleus(probs_NV: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of likeliest tokens that holds `top_p`."""
    sorted_NV, order_NV = probs_NV.sort(-1, descending=True)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    return torch.zeros_like(probs_NV).scatter(-1, order_NV, sorted_NV.masked_fill(before_NV >= top_p, 0.0))


def _uniform(seeds: Sequence[int], sampling: Sampling) -> Tensor:
    """(rows, max_new_tokens) in [0, 1), each row from its own seed."""
    return torch.stack(
        [torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
