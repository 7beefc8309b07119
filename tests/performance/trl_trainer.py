"""TRL's GRPOTrainer on a job, step by step: `python -m tests.performance.trl_trainer JOB` in an environment with TRL.

It is given its best reasonable settings: pictures that are already as small as the model sees them, one pass over all
rollouts, no logging, no checkpoints. A second turn is a tool call, the one way in which TRL trains on a picture that
comes in mid-episode: every reply counts as a call, and the tool cuts the job's box from the original.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, TrainerCallback
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from tests.performance.protocol import Turns

# The checkpoint's own template, in which a tool speaks as the user; calls are rendered because TRL insists on it.
TEMPLATE = """{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{% if c.type == 'image' %}\
<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}\
{% for call in m.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments }}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


class Processor(Qwen2_5_VLProcessor):
    """The family's processor without its video part, which needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class StepByStep(TrainerCallback):
    """A step lasts from one line to the next: data, rollouts, update and whatever the trainer does around them."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.note = ""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.done()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.turns.done(self.note)


def make_look(job: dict[str, Any], folder: Path) -> Any:
    """The tool of a second turn."""
    originals = [Image.open(folder / question["original"]).convert("RGB") for question in job["questions"]]
    for original in originals:
        original.load()

    def look(question: int) -> list[dict[str, Any]]:
        """Cut out a part.

        Args:
            question: Which question.

        Returns:
            The part, and what is said with it.
        """
        asked = job["questions"][question]
        part = originals[question].crop(asked["region"]).resize(asked["crop_size"], Image.Resampling.BICUBIC)
        before, after = asked["follow"]
        texts = [{"type": "text", "text": text} for text in (before, after)]
        return [texts[0], {"type": "image", "image": part}, texts[1]]

    return look


def always_look(tokenizer: Any, job: dict[str, Any], asked: list[int]) -> None:
    """Let every reply count as a call of the tool, for the question of its row; TRL reads replies in their order."""
    rows = itertools.count()

    def parse_response(ids: list[int], **_: Any) -> dict[str, Any]:
        call = {"name": "look", "arguments": {"question": asked[next(rows) % len(asked)]}}
        return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}

    tokenizer.response_template = {}
    tokenizer.parse_response = parse_response


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    job = json.loads((folder / "job.json").read_text())
    questions, group = job["questions"], job["group"]
    tokenizer = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(job["model"], dtype=torch.float32)
    size = {"shortest_edge": job["min_pixels"], "longest_edge": job["max_pixels"]}
    processor = Processor(Qwen2VLImageProcessorPil(size=size), tokenizer, TEMPLATE)
    config = GRPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        logging_strategy="no", save_strategy="no", disable_tqdm=True, dataloader_pin_memory=False,
        per_device_train_batch_size=job["micro_batch"], gradient_accumulation_steps=job["rows"] // job["micro_batch"],
        num_generations=group, max_steps=10**6, num_train_epochs=1, shuffle_dataset=False,
        max_completion_length=job["budget"], max_tool_calling_iterations=1, temperature=1.0, beta=0.0,
        num_iterations=1, loss_type="grpo", learning_rate=job["rate"], lr_scheduler_type="constant",
        optim="adamw_torch", weight_decay=0.0, max_grad_norm=1.0,
        generation_kwargs={"max_new_tokens": job["new_tokens"], "suppress_tokens": job["banned"]},
    )  # fmt: skip
    prompts = [[{"role": "system", "content": q["system"]}, {"role": "user", "content": q["ask"]}] for q in questions]
    pictures = [Image.open(folder / question["picture"]).convert("RGB") for question in questions]
    data = Dataset.from_dict({"prompt": prompts, "image": pictures})
    stepping = StepByStep()

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        stepping.note = json.dumps({"episode": sorted({len(ids) for ids in completion_ids})})
        return [float(i % 2) for i in range(len(completion_ids))]

    tools = None
    if job["turns"] == 2:
        order = [i for i in range(len(questions)) for _ in range(group)]
        always_look(tokenizer, job, order)
        tools = [make_look(job, folder)]
    GRPOTrainer(model, reward, config, data, processing_class=processor, callbacks=[stepping], tools=tools).train()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
