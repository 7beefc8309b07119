"""Alarms: what tells from a run's curves that it goes wrong, in time to do something about it.

Every rule takes the curves of the training metrics and says what it saw, or None. Comparisons with a level
that is not there yet (not a number) are false, so a rule is silent until it has seen enough.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mgpo.errors import UserError
from mgpo.monitoring.curves import Curve

METRICS = (
    "reward",
    "accuracy",
    "valid_box_ratio",
    "crop_rate",
    "constant_reward",
    "cut",
    "image_reliance",
    "audit_margin",
    "engine_gap",
    "entropy_turn",
    "length_turn",
)


@dataclass(frozen=True)
class Limits:
    """From where on something is wrong.

    Args:
        window: Steps in a level, and calm steps after which an alarm may sound again.
        reward_drop: Share of its best level that the reward may lose.
        box_drop: Share of its best level that the ratio of valid boxes may lose.
        look_drop: Share of its best level that the crop rate may lose; free turns rightly come to look less often.
        entropy_floor: Nats per token below which a policy hardly tries anything.
        entropy_factor: How many times lower than at the start the entropy may get.
        solved: Share of right rollouts from which on low entropy is as it should be.
        length_factor: How many times longer than at the start replies may get.
        length_floor: Tokens up to which no reply is called long.
        cut_share: Share of rollouts that may run into the token limit.
        constant_share: Share of groups that may be without a signal.
        constant_window: Steps in its level.
        reliance_floor: Nats per token by which pictures must matter.
        reliance_checks: Measurements in that level.
        margin_floor: Nats by which crops must make right answers likelier than black ones would.
        margin_drop: Share of its best level that this evidence margin may lose.
        margin_checks: Measurements in that level.
        engine_gap: Nats per token by which an engine's log-probs may differ from the trainer's.
    """

    window: int = 10
    reward_drop: float = 0.5
    box_drop: float = 0.4
    look_drop: float = 0.7
    entropy_floor: float = 0.01
    entropy_factor: float = 20
    solved: float = 0.9
    length_factor: float = 2
    length_floor: float = 16
    cut_share: float = 0.2
    constant_share: float = 0.95
    constant_window: int = 20
    reliance_floor: float = 0.02
    reliance_checks: int = 3
    margin_floor: float = 0.1
    margin_drop: float = 0.8
    margin_checks: int = 3
    engine_gap: float = 0.1

    def __post_init__(self) -> None:
        for name in ("window", "constant_window", "reliance_checks", "margin_checks"):
            if getattr(self, name) < 2:
                raise UserError(f"limits.{name} is {getattr(self, name)}; a level is of 2 values at least")


@dataclass(frozen=True)
class Alarm:
    """A warning: its kind, what was seen and what to try in words, and the numbers by which it was seen."""

    kind: str
    text: str
    numbers: dict[str, float]


Curves = Mapping[str, Curve]
Seen = tuple[str, dict[str, float]]  # text and numbers of an alarm, whose kind is the rule's name
NO_CURVE = Curve()


def reward_collapse(curves: Curves, limits: Limits) -> Seen | None:
    """The reward fell far below its best: updates are too large, and what was learnt is being unlearnt."""
    fall = curves.get("reward", NO_CURVE).fall(limits.window, limits.reward_drop)
    if fall is None:
        return None
    recent, best, step = fall
    return (
        f"The mean reward fell from {best:.2f} (until step {step}) to {recent:.2f}. Go back to a checkpoint from "
        "before and try a lower model.optimizer.init_args.lr or a higher model.objective.kl_weight.",
        {"recent": recent, "best": best, "best_step": step},
    )


def entropy_collapse(curves: Curves, limits: Limits) -> Seen | None:
    """The policy is nearly certain though often wrong: its rollouts are alike, and nothing better will be found."""
    right = curves.get("accuracy", NO_CURVE).recent(limits.window)
    for turn, curve in _turns(curves, "entropy_turn"):
        recent, start = curve.recent(limits.window), curve.start(limits.window)
        low = recent < limits.entropy_floor or recent < start / limits.entropy_factor
        if low and right < limits.solved:
            return (
                f"The entropy of turn {turn} is down to {recent:.4f} nats per token, with {right:.2f} of the answers "
                "right. Try a lower model.optimizer.init_args.lr, or a higher model.objective.clip_high, "
                "model.objective.kl_weight or model.sampling.temperature.",
                {"turn": turn, "recent": recent, "right": right},
            )
    return None


def grounding_lost(curves: Curves, limits: Limits) -> Seen | None:
    """Usable boxes became rarer than they had been: the policy gives up looking, and guesses from the overview."""
    fall, what = curves.get("valid_box_ratio", NO_CURVE).fall(limits.window, limits.box_drop), "valid boxes"
    if fall is None:  # the boxes of those that still look may be as good as ever
        fall, what = curves.get("crop_rate", NO_CURVE).fall(limits.window, limits.look_drop), "rollouts with a crop"
    if fall is None:
        return None
    recent, best, step = fall
    return (
        f"The share of {what} fell from {best:.2f} (until step {step}) to {recent:.2f}. Try a higher "
        "model.objective.kl_weight, a lower model.optimizer.init_args.lr, or questions in data.train that cannot be "
        "answered without a crop.",
        {"recent": recent, "best": best, "best_step": step},
    )


def length_blow_up(curves: Curves, limits: Limits) -> Seen | None:
    """Replies became much longer, or are cut before the answer: tokens are spent on rambling, and cost reward."""
    cut = curves.get("cut", NO_CURVE).recent(limits.window)
    if cut > limits.cut_share:
        return (
            f"{cut:.2f} of the rollouts run into the token limit. Try a higher model.sampling.max_new_tokens, or "
            "model.unfinished: mask.",
            {"cut": cut},
        )
    for turn, curve in _turns(curves, "length_turn"):
        recent, start = curve.recent(limits.window), curve.start(limits.window)
        if recent > limits.length_factor * start and recent > limits.length_floor:
            return (
                f"Replies of turn {turn} grew from {start:.0f} to {recent:.0f} tokens. Try "
                "model.objective.normalisation: constant, a higher model.objective.kl_weight or a lower "
                "model.sampling.max_new_tokens.",
                {"turn": turn, "start": start, "recent": recent},
            )
    return None


def constant_reward(curves: Curves, limits: Limits) -> Seen | None:
    """Nearly all groups are right or wrong as a whole for long: every step costs, and none teaches."""
    constant = curves.get("constant_reward", NO_CURVE).recent(limits.constant_window)
    if not constant > limits.constant_share:
        return None
    right = curves.get("accuracy", NO_CURVE).recent(limits.constant_window)
    hint = "harder" if right > 0.5 else "easier"
    return (
        f"Over {limits.constant_window} steps {constant:.2f} of the groups had equal rewards, with {right:.2f} of the "
        f"answers right. Try {hint} questions in data.train, a larger model.group_size, or "
        "model.constant_reward_groups: resample.",
        {"constant": constant, "right": right},
    )


def image_blind(curves: Curves, limits: Limits) -> Seen | None:
    """Replies are as likely with blank pictures as with the true ones: the policy answers without looking."""
    nats = curves.get("image_reliance", NO_CURVE).recent(limits.reliance_checks)
    if not nats < limits.reliance_floor:
        return None
    return (
        f"In {limits.reliance_checks} checks the pictures made the last replies only {nats:.4f} nats per token "
        "likelier. Try questions in data.train that cannot be guessed, more pixels in "
        "model.policy.init_args.max_pixels, or a higher model.objective.kl_weight.",
        {"nats": nats},
    )


def crop_blind(curves: Curves, limits: Limits) -> Seen | None:
    """Right answers are as likely with black crops as with the true ones: the policy looks, and does not read it."""
    margin, checks = curves.get("audit_margin", NO_CURVE), limits.margin_checks
    recent, fall = margin.recent(checks), margin.fall(checks, limits.margin_drop)
    if fall is None and not recent < limits.margin_floor:
        return None
    fell = "" if fall is None else f", down from {fall[1]:.2f} (until step {fall[2]})"
    return (
        f"In {checks} audits crops made the right answers only {recent:.2f} nats likelier than black ones in their "
        f"place{fell}: answers do not rest on what is cut out. Try questions in data.train that cannot be answered "
        "without a crop, or a lower model.policy.init_args.max_pixels.",
        {"nats": recent},
    )


def engine_apart(curves: Curves, limits: Limits) -> Seen | None:
    """The engine that samples computes something else than the policy that is trained, beyond rounding."""
    gap = curves.get("engine_gap", NO_CURVE).recent(limits.window)
    if not gap > limits.engine_gap:
        return None
    return (
        f"The engine's log-probs are {gap:.2f} nats per token from the trainer's, where rounding makes less than 0.01. "
        "Leave out model.sampler and see whether it learns; try another version of vLLM, or ahead: false.",
        {"gap": gap},
    )


Rule = Callable[[Curves, Limits], Seen | None]
_ALL = (
    reward_collapse, entropy_collapse, grounding_lost, length_blow_up, constant_reward, image_blind, crop_blind,
    engine_apart,
)  # fmt: skip
RULES: dict[str, Rule] = {rule.__name__: rule for rule in _ALL}


class Alarms:
    """Follows the curves of one run; each kind of alarm sounds once, until it has been calm for a window."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self.curves: dict[str, Curve] = defaultdict(Curve)
        self.sounding: dict[str, int] = {}  # steps for which it has been calm since

    def step(self, step: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Take in a step's metrics, those that are numbers; the alarms that it sets off."""
        for name, value in metrics.items():
            if name.rstrip("0123456789") in METRICS and math.isfinite(value):
                self.curves[name].steps.append(step)
                self.curves[name].values.append(value)
        return [alarm for kind, rule in RULES.items() if (alarm := self._new(kind, rule(self.curves, self.limits)))]

    def _new(self, kind: str, seen: Seen | None) -> Alarm | None:
        if seen is not None:
            known = kind in self.sounding
            self.sounding[kind] = 0
            return None if known else Alarm(kind, *seen)
        if kind in self.sounding:
            self.sounding[kind] += 1
            if self.sounding[kind] >= self.limits.window:
                del self.sounding[kind]
        return None


def _turns(curves: Curves, name: str) -> list[tuple[int, Curve]]:
    """The curves of that name by turn."""
    return sorted((int(key.removeprefix(name)), curve) for key, curve in curves.items() if key.startswith(name))
