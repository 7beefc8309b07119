"""Predicted against measured peaks: python -m tests.performance.plan_memory (minutes, on a CPU)."""

import torch

from mgpo.world.tokenizer import train_tokenizer
from tests.performance.memory import Setting, compare

SMALL_TOWER = dict(vision_width=32, vision_mlp=32, vision_layers=1)
SETTINGS = {
    "small": Setting(),
    "small, bfloat16": Setting(dtype="bfloat16"),
    "with a reference": Setting(reference=True, layers=6),
    "one micro-batch": Setting(layers=3, reply=192, micro=8, questions=1, vocabulary=2048),
    "one row a pass, wide MLP": Setting(
        image=16, reply=64, layers=3, vocabulary=2048, width=512, mlp=2048, micro=1, **SMALL_TOWER
    ),
    "pictures": Setting(image=256, reply=24, width=128, mlp=256),
    "several pictures": Setting(image=100, reply=24, pictures=4),
    "two looks": Setting(looks=2),
    "a blind answer": Setting(blind=True),
    "pictures, deep tower": Setting(image=196, vision_width=192, vision_mlp=512, vision_layers=5, kv_heads=4, group=4),
    "pictures, wide tower, bfloat16": Setting(image=196, reply=16, vision_width=320, vision_mlp=64, dtype="bfloat16"),
    "large groups, bfloat16": Setting(
        image=100, reply=64, group=16, questions=3, micro=16, mlp=64, layers=2, width=384, heads=6, dtype="bfloat16"
    ),
    "large vocabulary": Setting(
        image=16, reply=8, layers=2, vocabulary=32768, width=128, heads=2, group=32, micro=32, **SMALL_TOWER
    ),
    "large vocabulary, entropy": Setting(
        image=16,
        reply=8,
        layers=2,
        vocabulary=32768,
        width=128,
        heads=2,
        group=32,
        micro=32,
        entropy=True,
        **SMALL_TOWER,
    ),
    "deep, long replies": Setting(image=16, layers=8, reply=96, mlp=512, heads=2, group=16, **SMALL_TOWER),
    "adapters": Setting(layers=6, reply=64, lora=8, width=512, mlp=1024, heads=8),
    "adapters, bfloat16": Setting(lora=8, dtype="bfloat16", vocabulary=2048),
    "adapters in the tower too": Setting(lora=8, lora_vision=True, dtype="bfloat16", vocabulary=2048),
    "frozen tower": Setting(freeze_vision=True),
    "mixed": Setting(mixed=True),
    "mixed, checkpointing": Setting(mixed=True, checkpointing=True, layers=6),
    "adapters, bfloat16, checkpointing": Setting(lora=8, dtype="bfloat16", checkpointing=True, layers=6),
}


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = train_tokenizer()
    print(f"{'setting':32} {'phase':9} {'predicted':>10} {'measured':>10}  ratio   (MB beyond what is held)")
    for name, setting in SETTINGS.items():
        for phase, found in compare(setting, tokenizer).items():
            sizes = f"{found.predicted / 1e6:10.1f} {found.measured / 1e6:10.1f}"
            print(f"{name:32} {phase:9} {sizes}  {found.ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
