"""Token in, token out: what was sampled is what is trained on, and pictures fill their places."""

from collections.abc import Sequence
from itertools import pairwise

from mgpo.tools.doctor.case import Case, Result
from mgpo.types import Trajectory, Turn, conversations


def sampled_ids(case: Case) -> Result:
    """The ids that the sampler drew and was shown are those of the trajectories and of the trainer's rows."""
    name = "sampled ids"
    for turn, (shown, drawn) in enumerate(case.witness.turns()):
        playing = [t for t in case.sampled if len(t.turns) > turn]
        if [t.turns[turn].reply.ids for t in playing] != drawn:
            return Result(name, False, f"the replies of turn {turn + 1} are not the ids that the sampler drew")
        if [t.turns[turn].prompt.ids for t in playing] != shown:
            return Result(name, False, f"turn {turn + 1} was sampled behind other ids than those of its trajectory")
    batch = case.batch
    for row, trajectory in enumerate(case.scored):
        drawn = [i for turn in trajectory.turns if turn.learnt for i in turn.reply.ids]
        if batch.ids_NC[row][batch.policy_NC[row]].tolist() != drawn:
            return Result(name, False, f"question {trajectory.question.id} would be trained on ids nobody sampled")
        owner = batch.owner_N[row]
        prefix = batch.prefix_ids_BP[owner][batch.prefix_valid_BP[owner]].tolist()
        if prefix + batch.ids_NC[row][batch.valid_NC[row]].tolist() != whole_ids(trajectory.turns):
            return Result(name, False, f"the row of question {trajectory.question.id} is not what was shown and said")
        for turn, then in (pair for turns in conversations(trajectory.turns) for pair in pairwise(turns)):
            ended = turn.reply.ids[-1:] == (case.policy.chat.end_id,)
            if ended == (then.prompt.ids[:1] == (case.policy.chat.end_id,)):
                return Result(name, False, "a reply is followed by no end-of-turn token, or by two")
    total = int(batch.policy_NC.sum())
    return Result(name, True, f"{total} ids of {len(case.scored)} rollouts are trained on as they were sampled")


def policy_mask(case: Case) -> Result:
    """The mask is true at the places of sampled tokens, counted from the dialogue, and nowhere else."""
    name, batch = "policy mask", case.batch
    for row, trajectory in enumerate(case.scored):
        expected = [False]  # the first prompt's last token
        for k, turn in enumerate(trajectory.turns):
            expected += [False] * (len(turn.prompt.ids) if k else 0) + [turn.learnt] * len(turn.reply.ids)
        mask = batch.policy_NC[row].tolist()
        expected += [False] * (len(mask) - len(expected))
        if mask != expected:
            wrong = sum(a and not b for a, b in zip(mask, expected))
            missing = sum(b and not a for a, b in zip(mask, expected))
            what = f"{wrong} tokens that were not sampled, and lacks {missing} that were"
            return Result(name, False, f"for question {trajectory.question.id} the mask holds {what}")
    return Result(name, True, "it covers the sampled tokens and no end of turn that was only shown")


def image_tokens(case: Case) -> Result:
    """Checks that every turn has as many placeholders as image features, and that every view is shown."""
    name, policy = "image tokens", case.policy
    counted = 0
    for trajectory in case.trajectories:
        for number, turn in enumerate(trajectory.turns, start=1):
            places = turn.prompt.ids.count(policy.chat.image_id)
            features = len(policy.features(turn.prompt.images)) if turn.prompt.images else 0
            if places != features:
                what = f"turn {number} has {places} image tokens, but {features} image features"
                return Result(name, False, f"question {trajectory.question.id}: {what}")
            counted += places
        images = sum(len(turn.prompt.images) for turn in trajectory.turns)
        if images != len(trajectory.views) and trajectory.failed is None:
            what = f"the dialogue shows {images} pictures of {len(trajectory.views)} views"
            return Result(name, False, f"question {trajectory.question.id}: {what}")
    return Result(name, True, f"{counted} image tokens have a feature each, and every view is shown")


def length(case: Case) -> Result:
    """With replies as long as they may get, conversations stay within the positions that the model knows.

    Those that don't are ended there and left out; that is a failure where it happens to all of them.
    """
    name, limit = "length", case.policy.max_positions
    if limit is None:
        return Result(name, None, "the model's configuration has no max_position_embeddings")
    reached: dict[int, Trajectory] = {}
    for trajectory in case.trajectories:
        ends: list[int] = []
        for turns in conversations(trajectory.turns):
            at = 0
            for turn in turns:
                at = case.policy.positions(turn.prompt, at)[1] + case.sampling.max_new_tokens
            ends.append(at)
        reached[max(ends, default=0)] = trajectory
    shortest, longest = min(reached), max(reached)
    if shortest > limit:
        advice = "lower model.sampling.max_new_tokens or the pixel caps"
        return Result(name, False, f"every conversation may reach position {shortest:,} of {limit:,}; {advice}")
    text = f"prompts and replies take {longest:,} of {limit:,} positions at most"
    if longest > limit:
        text += f", where that about question {reached[longest].question.id} would be ended and left out"
    return Result(name, True, text)


def whole_ids(turns: Sequence[Turn]) -> list[int]:
    """The ids of some turns in order, shown and sampled."""
    return [i for turn in turns for i in (*turn.prompt.ids, *turn.reply.ids)]
