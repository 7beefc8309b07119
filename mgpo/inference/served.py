"""A model behind a server that speaks the OpenAI protocol: the same dialogues, as messages instead of token ids."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from PIL import Image

from mgpo.answers.thoughts import spoken
from mgpo.dialogues import Dialogue, TwoTurn
from mgpo.dialogues.asked import begins_anew, next_of, opening_of, stop_of
from mgpo.errors import UserError
from mgpo.images.decoding import BadImage
from mgpo.images.views import Frame, View, VisionResolution
from mgpo.inference.base import AskedModel, Samples
from mgpo.inference.client import ChatClient, NoReply, ServerError, shown
from mgpo.inference.reading import ask, read_reply
from mgpo.policy.families.qwen_pixels import PixelBudget
from mgpo.rollout.crops import Swap, picture_of, swaps_of
from mgpo.rollout.episodes import seed_of
from mgpo.rollout.in_process import Sampling
from mgpo.types import Asked, Message, Prompt, Reply, Trajectory, Turn
from mgpo.utils.least_values import at_least

MOST_NAMES, LONGEST_NAME = 6, 60  # of models, in a message


class ServedModel(AskedModel):
    """Asks a served model (vLLM, SGLang, a hosted one) through /chat/completions.

    Every picture is sent as a PNG of the size at which the model is to see it. A server that shrinks it
    once more moves the coordinates of models that write pixels, so give the server's own budget here,
    or serve an export, which carries the run's. A server's penalties are its own: start vLLM with
    `--generation-config vllm` to have none.

    A question that the server fails on, or replies to without a text, has `failed` set in its trajectory. What stands
    between the tags of a thought, or in a field of its own, is no reply.

    Args:
        base_url: Where the protocol begins, such as http://localhost:8000/v1.
        model: The name under which the model is served; not needed where there is only one.
        dialogue: What is said in each turn.
        max_new_tokens: A reply is cut here.
        frame: The units in which the model writes coordinates: pixels (Qwen2.5-VL) or thousand (Qwen3-VL).
        max_pixels: Cap on the pixels of every picture.
        min_pixels: Floor on the pixels of every picture.
        crop_max_pixels: Cap for sub-images where it differs from `max_pixels`.
        factor: Sides of pictures are multiples of this: 28 for Qwen2.5-VL, 32 for Qwen3-VL.
        parallel: Questions that are asked at the same time.
        extra: Put into every request, such as {"chat_template_kwargs": …}; null takes a key out of it.
        client: Those of `ChatClient`: api_key_env, timeout, retries, backoff.

    Raises:
        ServerError: If the server can't be reached or names no model.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        dialogue: Dialogue | None = None,
        max_new_tokens: int = 1024,
        frame: Frame | str = Frame.PIXELS,
        max_pixels: int = 1280 * 28 * 28,
        min_pixels: int = 256 * 28 * 28,
        crop_max_pixels: int | None = None,
        factor: int = 28,
        parallel: int = 8,
        extra: Mapping[str, Any] | None = None,
        **client: Any,
    ) -> None:
        if parallel < 1:
            raise UserError(f"parallel is {parallel}; at least 1 question has to be asked at a time")
        at_least("served", max_pixels=max_pixels, min_pixels=min_pixels, crop_max_pixels=crop_max_pixels)
        crop_max = crop_max_pixels or max_pixels
        resolution = VisionResolution(
            _frame_of(frame),
            PixelBudget(min(min_pixels, max_pixels), max_pixels, factor),
            PixelBudget(min(min_pixels, crop_max), crop_max, factor),
        )
        super().__init__(self.episodes, resolution, dialogue or TwoTurn(), max_new_tokens)
        self.client, self.parallel, self.extra = ChatClient(base_url, **client), parallel, dict(extra or {})
        self.model = model or self._only_model()

    def identity(self) -> dict[str, Any]:
        """Give, for JSON, the server's address, the model's name there, how it sees, and what is put into requests."""
        return {
            "resolution": repr(self.resolution),
            "server": self.client.base_url,
            "model": self.model,
            "extra": self.extra,
        }

    def episodes(
        self,
        dialogue: Dialogue,
        samples: Samples,
        copies: int,
        sampling: Sampling,
        key: tuple[int, ...],
        resolution: VisionResolution | None = None,
        swap: Swap | Sequence[Swap | None] | None = None,
        begun: Sequence[Sequence[Turn]] = (),
    ) -> list[Trajectory]:
        """`copies` episodes a question, several at a time. Raises ServerError where none can be played."""
        seen, known = resolution or self.resolution, begun or [()] * len(samples)
        episodes = [
            (dialogue, sample, sampling, (*key, sample[0].id, copy), seen, own, turns)
            for sample, own, turns in zip(samples, swaps_of(swap, samples), known, strict=True)
            for copy in range(copies)
        ]
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda episode: self._episode(*episode), episodes))

    def _episode(
        self,
        dialogue: Dialogue,
        sample: Asked,
        sampling: Sampling,
        key: tuple[int | str, ...],
        resolution: VisionResolution,
        swap: Swap | None,
        begun: Sequence[Turn],
    ) -> Trajectory:
        trajectory = Trajectory.begin(*sample)
        history: list[dict[str, Any]] = []
        messages: Sequence[Message] | None = opening_of(dialogue, trajectory, resolution)
        try:
            while messages is not None:
                shown = [as_sent(message, trajectory, swap) for message in messages]
                history = shown if begins_anew(messages) else history + shown
                turn = len(trajectory.turns)
                if turn < len(begun):
                    text, reply = begun[turn].text, begun[turn].reply
                else:
                    text, reply = self._reply(history, sampling, seed_of(*key, turn), stop_of(dialogue, turn))
                history.append({"role": "assistant", "content": without_thoughts(text)})
                trajectory.turns.append(Turn(Prompt(()), reply, text))
                messages = next_of(dialogue, trajectory, resolution)
        except (NoReply, BadImage) as error:
            trajectory.failed = str(error)
        return trajectory

    def _reply(
        self, history: list[dict[str, Any]], sampling: Sampling, seed: int, stop_text: str | None
    ) -> tuple[str, Reply]:
        body = {
            "model": self.model, "messages": history, "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed % 2**31, "logprobs": True,
            "stop": None if stop_text is None else [stop_text],
        }  # fmt: skip
        return ask(self.client, body, self.extra, partial(read_reply, stop_text=stop_text), stop_text)

    def _only_model(self) -> str:
        names = self.client.models()
        if len(names) == 1:
            return names[0]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        served = ", ".join(shown(name)[:LONGEST_NAME] for name in names[:MOST_NAMES])
        raise ServerError(f"{self.client.base_url} serves {served or 'no model'}{more}; name one with model")


def as_sent(message: Message, trajectory: Trajectory, swap: Swap | None = None) -> dict[str, Any]:
    """A message of a dialogue as the protocol has it, with the pixels of its views, or what a swap shows instead."""
    if all(isinstance(part, str) for part in message.parts):
        return {"role": message.role, "content": "".join(str(part) for part in message.parts)}
    content = [
        {"type": "image_url", "image_url": {"url": data_uri(picture_of(trajectory, part, swap))}}
        if isinstance(part, View)
        else {"type": "text", "text": part}
        for part in message.parts
    ]
    return {"role": message.role, "content": content}


def without_thoughts(text: str) -> str:
    """A reply as later turns are shown it: chat templates forget thoughts, and not every server has such a one."""
    said = spoken(text)
    return text if said == text else said.lstrip()


def _frame_of(name: Frame | str) -> Frame:
    """Raises UserError for a frame that there is not."""
    try:
        return Frame(name)
    except ValueError:
        known = ", ".join(frame.value for frame in Frame)
        raise UserError(f"frame is {name!r}; the model names boxes in one of {known}") from None


def data_uri(image: Image.Image) -> str:
    """A picture as a PNG in a data address, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
