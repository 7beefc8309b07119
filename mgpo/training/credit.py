"""Which reply of a rollout is learnt with what: with the answer's advantage, and a look with its own beside it."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mgpo.objective import Objective
from mgpo.training.groups import Groups

Credit = Literal["answer", "turn"]
FLOOR = 0.04  # added to the standard deviation of grades, so that differences of less than 0.3 nats stay small


def token_advantages(groups: Groups, objective: Objective) -> list[Tensor]:
    """Of each trajectory the advantages of its learnt tokens, in order.

    They are those of the answer's reward in all replies. Where the evidence of the looks was measured, those of what a
    look was worth come on top in its own reply (advantages by turn: AdaptVision, arXiv 2512.03794; by evidence:
    Vision-RL², arXiv 2609.19745). Alone they would have looks learnt soon, and then for what a crop says by itself,
    where an answer takes more.
    """
    counted_BG = groups.counted_BG
    answers_N = objective.advantages(groups.rewards_BG, counted_BG).flatten()
    looks = [objective.advantages(grades_BG, counted_BG, FLOOR) for grades_BG in groups.looks_BGK.unbind(2)]
    looks_NK = torch.stack(looks, 2).flatten(0, 1) if looks else None
    advantages = []
    for i, trajectory in enumerate(groups.trajectories):
        values = answers_N[i].repeat(len(trajectory.turns))
        if looks_NK is not None:
            values[:-1] += F.pad(looks_NK[i], (0, len(values)))[: len(values) - 1]
        parts = [value.expand(len(turn.reply.ids)) for value, turn in zip(values, trajectory.turns) if turn.learnt]
        advantages.append(torch.cat(parts))
    return advantages
