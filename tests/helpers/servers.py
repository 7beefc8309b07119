"""Servers on this machine: one that answers with what a function says, and one that speaks no HTTP of its own."""

import http.server
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

Answer = tuple[int, dict[str, str], bytes]  # status, headers, body


@contextmanager
def serving(answer: Callable[[str, int], Answer]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that were asked for; `answer` is given a path without slashes, and the port."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers, body = answer(self.path.strip("/"), service.server_port)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{service.server_port}", asked
    service.shutdown()
    service.server_close()


@contextmanager
def speaking(pieces: Iterable[bytes]) -> Iterator[str]:
    """The address of a server that sends these, as they come, to the one client that it has."""
    with socket.create_server(("127.0.0.1", 0)) as service:

        def speak():
            with suppress(OSError), service.accept()[0] as client:
                for piece in pieces:
                    client.sendall(piece)

        threading.Thread(target=speak, daemon=True).start()
        yield f"http://127.0.0.1:{service.getsockname()[1]}"
