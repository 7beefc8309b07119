"""On-policy self-distillation: the policy that looks teaches itself to answer at one glance."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mgpo.dialogues import Dialogue, TwoTurn
from mgpo.errors import UserError
from mgpo.policy.base import Policy
from mgpo.policy.passes.logprobs import score_replies
from mgpo.policy.passes.micro_batches import micro_batches
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Trajectory

AT_ONE_GLANCE = (
    "model.teacher teaches replies at one glance, but model.dialogue goes on behind the first; take "
    "mgpo.dialogues.answer_only, or leave it out"
)


class SelfTeacher:
    """A slowly moving copy of the policy, which looks where the policy does not and judges every token that it said.

    For each question the copy names a box and is given its crop. Behind that it scores the replies that the policy
    sampled at one glance, as if they were its own. The advantage of a token is

        Â_nc = min(max(log π_T(a_nc | crop, h_nc) - log π_old(a_nc | h_nc), -clip), clip)

    which makes the policy gradient, but for the clip, that of the reverse divergence KL(π || π_T) at each token
    (Vision-OPD, arXiv 2605.18740). No right answer is used. Where the copy's box is refused there is nothing to teach,
    and the advantage is 0.

    Args:
        dialogue: In which the copy looks; `TwoTurn` unless given.
        decay: The share that the copy keeps of itself at each update: θ_T becomes decay θ_T + (1 - decay) θ.
        clip: The largest advantage of a token, in nats.
    """

    policy: Policy | None = None  # the copy; no submodule of anything, so that it is neither trained nor a parameter

    def __init__(self, dialogue: Dialogue | None = None, decay: float = 0.99, clip: float = 5.0) -> None:
        if not 0 <= decay <= 1 or not clip > 0:
            raise UserError(f"model.teacher has decay {decay} and clip {clip}; they are in [0, 1] and above 0")
        self.dialogue, self.decay, self.clip = dialogue or TwoTurn(), decay, clip
        self.moving: dict[str, Tensor] = {}  # those of its weights that follow: what is trained in the policy

    def begin(self, policy: Policy) -> None:
        """Begin as a copy of the policy, unless there is one. Raises UserError where its weights could not follow."""
        if self.policy is None:
            trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
            self.policy = copy.deepcopy(policy).requires_grad_(False).eval()
            self.moving = {name: value for name, value in self.policy.named_parameters() if name in trained}
            coarse = {value.dtype for value in self.moving.values()} & {torch.bfloat16, torch.float16}
            if coarse and 0 < self.decay < 1:
                raise UserError(
                    f"model.teacher follows by less than weights in {str(coarse.pop())[6:]} can move; take "
                    "model.policy.init_args.dtype float32, or adapters (policy.lora)"
                )

    def to(self, device: torch.device) -> None:
        """Move the copy there."""
        assert self.policy is not None
        self.policy.to(device)

    @torch.no_grad()
    def follow(self, policy: Policy) -> None:
        """Come a little closer to the policy, after one of its updates."""
        learnt = dict(policy.named_parameters())
        for name, weight in self.moving.items():
            weight.lerp_(learnt[name].to(weight), 1 - self.decay)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take the weights that `moving` held. Raises UserError where they are others."""
        if {name: w.shape for name, w in weights.items()} != {name: w.shape for name, w in self.moving.items()}:
            raise UserError(
                "the checkpoint holds no teacher like this run's; begin a new run from its weights, with "
                "model.policy.init_args.start"
            )
        for name, weight in self.moving.items():
            weight.copy_(weights[name])

    @torch.no_grad()
    def advantages(
        self,
        trajectories: Sequence[Trajectory],
        copies: int,
        sampling: Sampling,
        key: tuple[int, ...],
        micro_batch_tokens: int,
    ) -> tuple[list[Tensor], list[float]]:
        """Of each token of one-turn rollouts, `copies` to a question and these next to each other.

        Args:
            trajectories: Rollouts of the policy, with its log-probs.
            copies: Rollouts of a question.
            sampling: How they were drawn. The copy takes the likeliest tokens.
            key: Run seed and step.
            micro_batch_tokens: Tokens in one pass, a shared prompt counted once.

        Returns:
            The advantages by trajectory, and of each token of which there is something to teach how much likelier it
            is at one glance than behind the crop, in nats: their mean is an estimate of the divergence.
        """
        assert self.policy is not None
        if any(len(trajectory.turns) > 1 for trajectory in trajectories):
            raise UserError(AT_ONE_GLANCE)
        samples = [trajectory.asked for trajectory in trajectories[::copies]]
        greedy = replace(sampling, temperature=0)
        looks = roll_out(self.policy, InProcessSampler(), self.dialogue, samples, 1, greedy, key)
        advantages = [torch.zeros(t.learnt_tokens) for t in trajectories]
        taught = [i for i, t in enumerate(trajectories) if t.failed is None and _shows(looks[i // copies])]
        judged = [_behind(looks[i // copies], trajectories[i]) for i in taught]
        gaps: list[float] = []
        scores = score_replies(self.policy, judged, micro_batches(judged, micro_batch_tokens), sampling.temperature)
        for i, score_M in zip(taught, scores):
            turn = trajectories[i].turns[-1]
            gap_M = score_M - torch.tensor(turn.scored or turn.reply.logprobs)
            advantages[i] = gap_M.clamp(-self.clip, self.clip)
            gaps += (-gap_M).tolist()
        return advantages, gaps


def _shows(look: Trajectory) -> bool:
    """Whether it came to a reply behind a crop."""
    return look.failed is None and bool(look.crops)


def _behind(look: Trajectory, rollout: Trajectory) -> Trajectory:
    """The look with the rollout's reply for its last one, which alone is scored."""
    *before, last = look.turns
    said = replace(last, reply=rollout.turns[-1].reply)
    return replace(look, turns=[*(replace(turn, learnt=False) for turn in before), said])
