"""What the doctor examines in its tests."""

from mgpo.dialogues import TwoTurn
from mgpo.images.boxes import BoxRule
from mgpo.objective import Objective
from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.tools.doctor.case import Case
from mgpo.tools.doctor.examine import CHECKS
from tests.conftest import make_question, noise_image
from tests.training.test_module import adam

RULE = BoxRule(min_side=8)
IMAGES = [noise_image(448, 448, 1), noise_image(640, 320, 2)]
SAMPLES = [(make_question(image, f"q{i}"), image) for i, image in enumerate(IMAGES)]


def case_of(policy, dialogue=None, **changes):
    usual = dict(
        sampler=InProcessSampler(), dialogue=dialogue or TwoTurn(rule=RULE), objective=Objective(),
        sampling=Sampling(max_new_tokens=8), samples=SAMPLES[1:],
        make_optimizer=lambda: adam(p for p in policy.parameters() if p.requires_grad),
    )  # fmt: skip
    return Case(policy, **{**usual, **changes})


def failures(case, skipped=()):
    """Names and texts of all checks that fail; those that had nothing to examine have to be these."""
    results = {name: check(case) for name, check in CHECKS.items()}
    assert all(result.name == name for name, result in results.items())
    assert [name for name, result in results.items() if result.passed is None] == list(skipped)
    return {name: result.text for name, result in results.items() if result.passed is False}
