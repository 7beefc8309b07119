"""Two-turn rollouts: our sampler against `generate` of transformers, called in every turn on the whole history."""

from collections.abc import Sequence
from itertools import count

import torch
from torch.nn.utils.rnn import pad_sequence

from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.rollout.episodes import roll_out
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Prompt, Trajectory
from tests.performance.job import GROUP, LEAST, QUESTIONS, SMALL, Looking, draw_questions, load_policy
from tests.performance.pairs import Options, Row, faster, run_pairs

NEW_TOKENS = 32  # a turn


def measure(options: Options) -> list[Row]:
    """64 rollouts of 8 questions, every reply 32 tokens. Ours cuts, shrinks and encodes; theirs is given all that."""
    return [measure_pictures(options, picture) for picture in (LEAST, SMALL)]


def measure_pictures(options: Options, picture: int) -> Row:
    """With pictures of that many tokens."""
    policy = load_policy(picture).eval()
    samples = [(question, question.picture.load()) for question in draw_questions(policy.resolution, 2)]
    steps = count()

    def ours() -> list[Trajectory]:
        sampling, key = Sampling(NEW_TOKENS), (0, next(steps))
        return roll_out(policy, InProcessSampler(), Looking(), samples, GROUP, sampling, key)

    episodes = ours()
    pairs = run_pairs(ours, lambda: play(policy, episodes), options.pairs)
    what, against = f"rollouts, two turns, pictures of {picture} tokens", "transformers `generate` on the whole history"
    return faster(what, against, 4, pairs, "rollouts/s", QUESTIONS * GROUP)


def play(policy: Qwen25VL, episodes: Sequence[Trajectory]) -> list[Prompt]:
    """What was shown in these episodes, shown again, with replies of its own in between."""
    histories = [Prompt(()) for _ in episodes]
    for turn in range(2):
        shown = [episode.turns[turn].prompt for episode in episodes]
        histories = [Prompt(h.ids + p.ids, h.images + p.images) for h, p in zip(histories, shown)]
        replies = generate(policy, histories)
        histories = [Prompt(h.ids + reply, h.images) for h, reply in zip(histories, replies)]
    return histories


def generate(policy: Qwen25VL, histories: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """One padded batch of all rows with all their pictures."""
    rows = [torch.tensor(history.ids) for history in histories]
    ids_NT = pad_sequence(rows, True, policy.pad_id, padding_side="left")
    valid_NT = pad_sequence([torch.ones_like(row) for row in rows], True, 0, padding_side="left")
    images = [image for history in histories for image in history.images]
    drawn_NT = policy.model.generate(
        input_ids=ids_NT, attention_mask=valid_NT, mm_token_type_ids=(ids_NT == policy.chat.image_id).long(),
        pixel_values=torch.cat([image.patches for image in images]),
        image_grid_thw=torch.tensor([image.grid for image in images]),
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=NEW_TOKENS,
        suppress_tokens=policy.banned.nonzero().flatten().tolist(),
    )  # fmt: skip
    return [tuple(row) for row in drawn_NT[:, ids_NT.shape[1] :].tolist()]
