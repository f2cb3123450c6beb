"""Serve the page on this machine, privately: no analytics, no other host, uploads deleted."""

import errno
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_geaau.app import Answers, require_gradio
from hf_geaau.environ import environment
from hf_geaau.errors import GeaauError

PORTS_TRIED = 20
STYLE = Path(__file__).parent / "style.css"

# What the browser may load: nothing from other hosts, whatever a version of Gradio would like to. Its scripts need
# inline code and `eval`, and its workers and pictures blobs.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:;"
    " worker-src 'self' blob:"
)


class AppError(GeaauError):
    """The app cannot be served."""


def serve(
    model: str | Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    backend: str | None = None,
    device: str | None = None,
    open_browser: bool = False,
    max_seconds: float | None = None,
    max_file_size: str | None = None,
    on_ready: Callable[[str, str | None], None] | None = None,
) -> None:
    """Load a model and serve the page until Ctrl-C or a termination signal.

    Uploads and results lie in a temporary folder of this process, which only its user can read. They are deleted an
    hour after they came, and all of them at the end.

    Args:
        model: Hub id or directory; None for the bundled checkpoint.
        host: Address to listen at. Others than 127.0.0.1 let other machines in.
        port: If it is taken, one of the next 20.
        share: Ask Gradio for a public link, which passes everything through its servers.
        backend, device: See `hf_geaau.backends.load_runner`.
        open_browser: Open the page in the browser.
        max_seconds: Only so much of a video is analyzed; None for all.
        max_file_size: Largest upload, such as "200mb"; None for no limit.
        on_ready: Called with the address, and with the public link if there is one; None to print them.

    Raises:
        MissingExtraError: If Gradio is not installed.
        AppError: If no port is free, or the address is not of this machine.
        CheckpointError, DeviceError: If the model cannot be loaded.
    """
    require_gradio()
    free = free_port(host, port)
    with _private_environment(), _termination_as_interrupt():
        answers = Answers(model, backend=backend, device=device, max_seconds=max_seconds)
        import gradio as gr  # takes two seconds, which a wrong model need not wait for
        from starlette.middleware import Middleware

        from hf_geaau.app.page import build_page

        page = build_page(answers, "the bundled weights" if model is None else Path(model).name)
        on_space = "SPACE_ID" in os.environ  # Hugging Face's own frame around the page loads from its hosts
        middleware = [] if on_space else [Middleware(ContentPolicy)]
        theme = gr.themes.Default(  # with fonts of the system
            primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        )
        try:
            _, address, public = page.launch(
                server_name=host, server_port=free, share=share, inbrowser=open_browser, quiet=True, ssr_mode=False,
                prevent_thread_lock=True, css_paths=STYLE, theme=theme,
                footer_links=["api", "settings"], run_history=False, pwa=False, enable_monitoring=False,
                app_kwargs={"middleware": middleware}, show_error=False, mcp_server=False,
                max_file_size=max_file_size,
            )  # fmt: skip
            (on_ready or _print_address)(address, public)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            page.close(verbose=False)


def _print_address(address: str, public: str | None) -> None:
    print(f"The app is at {address}" + (f" and at {public}" if public else ""), flush=True)


class ContentPolicy:
    """ASGI middleware that adds the content policy to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


def free_port(host: str, port: int) -> int:
    """Return the first free port from `port` on.

    Raises:
        AppError: If the next 20 are taken, or the address is not of this machine.
    """
    last = min(port + PORTS_TRIED, 65_536)
    for candidate in range(port, last):
        try:
            (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)
            with socket.socket(family, kind, protocol) as attempt:
                if os.name == "posix":  # elsewhere it would let two programs share a port
                    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attempt.bind(address)
                return candidate
        except PermissionError as error:
            raise AppError(f"Cannot listen at port {candidate}: it is reserved. Pass a --port above 1023.") from error
        except socket.gaierror as error:
            raise AppError(f"Cannot listen at '{host}': it is no address. Pass --host 127.0.0.1.") from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise AppError(
                    f"Cannot listen at '{host}': {error.strerror}. Pass --host 127.0.0.1, or another of its addresses."
                ) from error
    raise AppError(f"The ports {port} to {last - 1} are all in use. Pass another --port.")


@contextmanager
def _private_environment() -> Iterator[None]:
    """Give Gradio a folder of its own, and switch its analytics off, while the page is served."""
    with tempfile.TemporaryDirectory(prefix="hf-geaau-app-", ignore_cleanup_errors=True) as folder:
        values = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        with environment(**values):
            yield


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the app as Ctrl-C does, so that uploads are deleted then, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        for number, _ in before:  # jobs that a shell started in the background ignore SIGINT
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
