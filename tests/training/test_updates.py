"""What an update starts from: the weights of now, and no gradients of before."""

import torch

from tests.training.test_module import Noisy, equal, fit, make, weights


class Watching(Noisy):
    """Looks at weights and gradients before each micro-batch."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.fresh, self.learning, self.held = [], [], []

    def roll_out(self, *args, **options):
        self.held.append(any(p.grad is not None for p in self.policy.parameters()))
        return super().roll_out(*args, **options)

    def loss(self, *args):
        weight = self.policy.model.lm_head.weight
        self.fresh.append(torch.equal(torch.eye(weight.shape[1]) @ weight.T, weight.T.bfloat16()))
        loss, metrics = super().loss(*args)
        learnt = [p for p in self.policy.model.model.language_model.layers.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, learnt, retain_graph=True, allow_unused=True)
        self.learning.append(all(gradient is not None for gradient in gradients))
        return loss, metrics


def test_mixed_precision_computes_with_the_weights_of_now(tokenizer, tmp_path):
    """An autocast that keeps casts of weights, which Lightning's does not, would go on with those from before an
    update, and with those from rollouts, which have no gradients."""
    module = make(tokenizer, Watching, mini_batches=2, epochs=2)
    fit(module, tmp_path, precision="bf16-mixed", enable_checkpointing=False)
    assert len(module.fresh) > 4 and all(module.fresh) and all(module.learning)


def test_gradients_are_neither_held_in_rollouts_nor_left_from_before(tokenizer, tmp_path):
    module, other = make(tokenizer, Watching), make(tokenizer)
    for parameter in module.policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    for each in (module, other):
        fit(each, tmp_path, enable_checkpointing=False)
    assert len(module.held) == 4 and not any(module.held)
    assert equal(weights(module), weights(other))
