"""The model card of an export: what the model was trained to be told, word for word."""

from pathlib import Path
from typing import Any

from mgpo.dialogues import BlindAnswer, Dialogue, SingleTurn
from mgpo.images.views import Frame
from mgpo.inference.card_figures import figures
from mgpo.inference.class_paths import settings_of
from mgpo.policy.base import Policy
from mgpo.policy.families.qwen_pixels import PixelBudget

MANY = 8  # pictures that a server is to take
UNITS = {
    Frame.PIXELS: "pixels of the picture as the model sees it, after resizing",
    Frame.THOUSAND: "thousandths of the picture's sides",
    Frame.UNIT: "shares of the picture's sides, 0 to 1",
}
CARD = """---
library_name: {library}
pipeline_tag: image-text-to-text
tags: [mgpo, grounding, vision-language]
{base}---

# A model that says where to look

Trained with MGPO (arXiv 2507.05920): it names a box, is shown that part of the original picture, and answers.

{figures}## Ask it

    import mgpo
    mgpo.load("{place}").ask("street.jpg", "What does the sign say?")

or serve it and play the same dialogue through the server:

{merging}    vllm serve {whole} --served-model-name mgpo --limit-mm-per-prompt '{{"image": {images}}}'
    mgpo.load("http://localhost:8000/v1", model="mgpo"{served})

## Or prompt it yourself

- Boxes are in {units}.
{budget}- A reply has at most {tokens} tokens; decode greedily, without penalties.
- Slots: {{image}} is a picture, {{question}} the question, {{choices}} the options, a line each, as "(A) blue";
  {{reason}} says why no part could be cut out, {{looks}} how often another may be named.
{ends}
{texts}"""


def model_card(
    policy: Policy,
    dialogue: Dialogue,
    max_new_tokens: int,
    place: str | None = None,
    run: Path | None = None,
    step: int | None = None,
    library: str = "transformers",
) -> str:
    """The card of an export in Markdown, with the hub's front matter: how the model sees, is asked and is served.

    Args:
        policy: The model.
        dialogue: Its texts are in the card.
        max_new_tokens: Of a reply.
        place: The folder or repository from which the card loads it.
        run: The folder of the run that trained it, whose report is shown.
        step: Updates after which it was saved.
        library: What loads its weights: peft for adapters alone.
    """
    path = str(getattr(policy, "path", ""))
    one = isinstance(dialogue, SingleTurn | BlindAnswer)  # picture in a conversation; of others nobody knows
    images = int(getattr(dialogue, "turns", 1 if one else MANY))
    stop = dialogue.stop_text(0)
    whole, crop = policy.resolution.full, policy.resolution.crop
    budget, served = "", [f'frame="{policy.resolution.frame.value}"']
    if isinstance(whole, PixelBudget) and isinstance(crop, PixelBudget):
        budget = (
            f"- A whole picture is shown at {whole.min_pixels:,} to {whole.max_pixels:,} pixels, a part at at most "
            f"{crop.max_pixels:,}; sides are multiples of {whole.factor}.\n"
        )
        served += [f"max_pixels={whole.max_pixels}", f"min_pixels={whole.min_pixels}", f"factor={whole.factor}"]
        served += [f"crop_max_pixels={crop.max_pixels}"] if crop.max_pixels != whole.max_pixels else []
    place = place or "this/folder"
    adapters = library == "peft"  # which a server can't take without their base
    return CARD.format(
        library=library,
        place=place,
        whole="whole" if adapters else place,
        merging=f"    python -m mgpo export --run {place} --output whole\n" if adapters else "",
        figures=figures(run, step),
        base="" if Path(path).exists() else f"base_model: {path}\n",
        images=images,
        served="".join(f", {argument}" for argument in served),
        units=UNITS[policy.resolution.frame],
        budget=budget,
        tokens=max_new_tokens,
        ends="" if stop is None else f"- A reply that names a box ends with {stop!r}; stop there and show the part.\n",
        texts="\n".join(_texts(settings_of(dialogue)["init_args"])),
    )


def _texts(arguments: dict[str, Any]) -> list[str]:
    return [f"`{name}`:\n\n````text\n{text}\n````\n" for name, text in arguments.items() if isinstance(text, str)]
