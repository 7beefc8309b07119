"""The OpenAI protocol on 127.0.0.1, for tests: a server of canned answers, and an engine on a policy of ours."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image

from mgpo.rollout.in_process import InProcessSampler, Sampling
from mgpo.types import Prompt


class Server:
    """The protocol on 127.0.0.1: `answers` maps (path, body or None, headers) to (status, object, bytes or pieces).

    Pieces are sent as they come, until the client is gone.
    """

    def __init__(self, answers):
        self.answers, self.seen, self.lock = answers, [], threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer(None)

            def do_POST(self):
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                with outer.lock:
                    outer.seen.append((self.path, body, dict(self.headers)))
                    status, said, *headers = outer.answers(self.path, body, self.headers)
                pieces = said if isinstance(said, Iterator) else None
                raw = said if isinstance(said, bytes) or pieces else json.dumps(said).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                if pieces is None:
                    self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                for piece in pieces or [raw]:
                    self.wfile.write(piece)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *error: None  # a client that no longer listens
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()


class Engine:
    """What vLLM does with a request, on a policy of ours: template, pictures, tokens, the stop text cut off."""

    def __init__(self, policy):
        self.policy = policy

    def __call__(self, path, body, headers):
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny"}]}
        assert body["model"] == "tiny"
        policy, (stop,) = self.policy, body.get("stop", [None])
        sampling = Sampling(body["max_tokens"], body["temperature"])
        conversation = InProcessSampler().open(policy, [self.prompt(body["messages"])], 1)
        ((_, reply),) = conversation.reply([body["seed"]], sampling, stop)
        text = policy.chat.decode(reply.ids)
        if reply.stop == "marker":
            text = text[: text.index(stop)]
        choice = {
            "message": {"role": "assistant", "content": text},
            "finish_reason": "length" if reply.stop == "length" else "stop",
            "stop_reason": stop if reply.stop == "marker" else None,
            "logprobs": {"content": [{"token": "?", "logprob": logprob} for logprob in reply.logprobs]},
        }
        return 200, {"choices": [choice]}

    def prompt(self, messages):
        """By the checkpoint's own chat template; a picture that would have to be resized is refused."""
        policy, images = self.policy, []
        for message in messages:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if part["type"] == "image_url":
                    part["type"] = "image"
                    raw = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/png;base64,"))
                    images.append(policy.pixels(Image.open(io.BytesIO(raw))))
                    assert policy.patcher.patch * images[-1].grid[1] == Image.open(io.BytesIO(raw)).height
        text = policy.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        first, *rest = text.split("<|image_pad|>")
        for image, piece in zip(images, rest, strict=True):
            first += "<|image_pad|>" * (len(image.patches) // policy.patcher.merge**2) + piece
        return Prompt(tuple(policy.tokenizer.encode(first)), tuple(images))
