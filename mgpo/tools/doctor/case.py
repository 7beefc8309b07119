"""What is examined: a few rollouts of the configured policy, and some in which a box is dictated."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image
from torch.optim import Optimizer

from mgpo.dialogues import Dialogue
from mgpo.errors import UserError
from mgpo.objective import Objective
from mgpo.policy.base import Policy
from mgpo.policy.passes.batch import Batch, collate
from mgpo.rollout.episodes import Conversations, Sampler, roll_out
from mgpo.rollout.fitting import in_process, most_of
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.doctor.marker import CANVAS, box_text, draw_canvas, frame_of
from mgpo.types import Asked, Pixels, Prompt, Reply, Trajectory

COPIES = 4  # rollouts a question
SHORT = 48  # tokens of a reply at most: enough to compare, and seconds on a large model
KEY = (0, 0)


@dataclass
class Result:
    """What a check came to: `passed` is None where there was nothing to examine. `text` says what it means."""

    name: str
    passed: bool | None
    text: str


@dataclass
class Case:
    """A policy with all that surrounds it in training.

    Args:
        samples: A few questions with their originals.
        sampling: As configured; replies here are cut sooner.
        make_optimizer: A fresh optimiser of the configured kind on the policy's weights.
    """

    policy: Policy
    sampler: Sampler
    dialogue: Dialogue
    objective: Objective
    sampling: Sampling
    samples: Sequence[Asked]
    make_optimizer: Callable[[], Optimizer]

    def __post_init__(self) -> None:
        short = replace(self.sampling, max_new_tokens=min(self.sampling.max_new_tokens, SHORT))
        self.witness = Witness(self.sampler)
        self.sampled = roll_out(self.policy, self.witness, self.dialogue, self.samples, COPIES, short, KEY)
        self.sampler.release()  # an engine's memory is wanted from here on
        self.watched: Any = _Watched(self.policy)
        dictator = _Dictator(lambda: box_text(self.watched.shown[0].size, frame_of(self.policy)))
        canvas = [(min((question for question, *_ in self.samples), key=lambda q: len(q.text)), draw_canvas())]
        self.dictated = roll_out(self.watched, dictator, self.dialogue, canvas, 2, short, KEY)
        if failed := [trajectory.failed for trajectory in self.dictated if not trajectory.turns]:
            raise UserError(f"question {canvas[0][0].id} about a picture of {CANVAS[0]} x {CANVAS[1]}: {failed[0]}")
        for trajectory in self.dictated:
            trajectory.turns[0].learnt = False  # nobody sampled it

    @property
    def trajectories(self) -> list[Trajectory]:
        """All trajectories that were played. In those that were dictated the first reply is not learnt from."""
        return [*self.sampled, *self.dictated]

    @property
    def scored(self) -> list[Trajectory]:
        """The trajectories with a reply that the policy sampled."""
        return [t for t in self.trajectories if any(turn.learnt for turn in t.turns)]

    @cached_property
    def batch(self) -> Batch:
        """The scored trajectories as the trainer lays them out, row by row."""
        return self.lay_out(self.scored)

    def lay_out(self, trajectories: Sequence[Trajectory]) -> Batch:
        """Trajectories as one training batch on the policy's device. Raises ValueError if groups are not together."""
        return collate(trajectories, self.policy.positions, self.policy.pad_id).to(self.policy.device)


class Witness:
    """A sampler that writes down the ids it was shown and those it drew, turn by turn and row by row."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self.exact = sampler, sampler.exact
        self.in_process, self.max_model_len = in_process(sampler), most_of(sampler)
        self.shown: defaultdict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)  # by turn and row
        self.drawn: defaultdict[int, dict[int, tuple[int, ...]]] = defaultdict(dict)

    def turns(self) -> Iterator[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
        """Of each turn what was shown and what was drawn, row by row."""
        for turn in range(len(self.drawn)):
            shown, drawn = sorted(self.shown[turn].items()), sorted(self.drawn[turn].items())
            yield [ids for _, ids in shown], [ids for _, ids in drawn]

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Conversations:
        """Opens conversations with the sampler, and writes down what each row is shown."""
        rows = [prompt for prompt in prompts for _ in range(copies)]
        return _Witnessed(self.sampler.open(policy, prompts, copies), self, 0, range(len(rows)), rows)


class _Witnessed:
    def __init__(
        self,
        conversation: Conversations,
        witness: Witness,
        turn: int,
        rows: Sequence[int],
        prompts: Sequence[Prompt],
    ) -> None:
        self.conversation, self.witness, self.turn, self.rows = conversation, witness, turn, rows
        self._note(prompts)

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]
        self.conversation.keep(rows)

    def take(self, replies: Sequence[Reply]) -> None:
        self.conversation.take(replies)

    def extend(self, prompts: Sequence[Prompt]) -> None:
        self._note(prompts)
        self.conversation.extend(prompts)

    def begin(self, prompts: Sequence[Prompt], rows: Sequence[int]) -> "_Witnessed":
        begun = self.conversation.begin(prompts, rows)
        return _Witnessed(begun, self.witness, self.turn, [self.rows[row] for row in rows], prompts)

    def reply(
        self, seeds: Sequence[int], sampling: Sampling, stop_text: str | None = None
    ) -> Iterator[tuple[int, Reply]]:
        for row, reply in self.conversation.reply(seeds, sampling, stop_text):
            self.witness.drawn[self.turn][self.rows[row]] = reply.ids
            yield row, reply
        self.turn += 1

    def _note(self, prompts: Sequence[Prompt]) -> None:
        self.witness.shown[self.turn].update((row, prompt.ids) for row, prompt in zip(self.rows, prompts, strict=True))


class _Dictator(InProcessSampler):
    """Says a given text in the first turn of every row, and samples from then on."""

    def __init__(self, text: Callable[[], str]) -> None:
        self.text = text

    def open(self, policy: Policy, prompts: Sequence[Prompt], copies: int) -> Any:
        conversation: Any = super().open(policy, prompts, copies)
        text = policy.chat.closing + self.text()  # behind a thought that the prompt may have begun
        sample, ids = conversation.reply, tuple(policy.chat.encode_text(text))

        def dictate(seeds: Sequence[int], *options: Any) -> Iterator[tuple[int, Reply]]:
            conversation.reply = sample
            conversation.pending = [ids] * len(seeds)  # said, but not yet seen by the model
            yield from enumerate(Reply(ids, (0.0,) * len(ids), "marker") for _ in seeds)

        conversation.reply = dictate
        return conversation


class _Watched:
    """A policy of which one can say what it was shown."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.shown: list[Image.Image] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def pixels(self, shown: Image.Image) -> Pixels:
        self.shown.append(shown)
        return self.policy.pixels(shown)
