"""Fetch a URL within a bound of time and bytes, whatever the server does."""

import ipaddress
import os
import socket
import threading
from contextlib import suppress
from typing import Any

from hf_geaau.errors import PhotoError, hide_secrets

MAX_DOWNLOAD_BYTES = 64 * 2**20
MAX_REDIRECTS = 10
PUBLIC_ONLY = "HF_GEAAU_PUBLIC_URLS_ONLY"
"""Environment variable for services: if it is set and not 0, URLs may lead to public addresses only.

Without it, a redirect to an address of the local network is followed, as browsers and curl do.
"""


def is_url(source: object) -> bool:
    """Return whether a source is an http(s) address."""
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def must_be_public() -> bool:
    """Return whether `PUBLIC_ONLY` is set."""
    return os.environ.get(PUBLIC_ONLY, "0") not in ("", "0")


def fetch(url: str, timeout: float) -> bytes:
    """Return the content of a URL.

    Args:
        url: http or https. Redirects are followed.
        timeout: Seconds of wall-clock time for everything: looking up the name, redirects, headers and content.

    Raises:
        PhotoError: If there is no answer with status 200 and at most `MAX_DOWNLOAD_BYTES` in time, or `PUBLIC_ONLY`
            is set and the URL leads to an address that is not public.
    """
    download = _Download(url, timeout)
    download.start()
    # The client's own timeout is for each read: headers that drip, endless 1xx answers or empty blocks pass it.
    download.join(timeout)
    if download.is_alive():
        download.abort()
        raise PhotoError(
            f"Cannot download {hide_secrets(url)!r}: no complete answer within {timeout:g} s. Raise `timeout`."
        )
    if download.error is not None:
        raise download.error
    return bytes(download.content)


class _Download(threading.Thread):
    """A download that another thread can end."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(name="download", daemon=True)
        self.url, self.timeout, self.shown = url, timeout, repr(hide_secrets(url))
        self.content, self.error = bytearray(), None  # type: bytearray, PhotoError | None
        self._sockets: list[socket.socket] = []
        self._is_aborted = False

    def run(self) -> None:
        from huggingface_hub.utils import httpx  # the hub's client library, whichever major version it brings

        try:
            self._follow(httpx)
        except PhotoError as error:
            self.error = error
        except httpx.TimeoutException:
            self.error = PhotoError(
                f"Cannot download {self.shown}: no complete answer within {self.timeout:g} s. Raise `timeout`."
            )
        except Exception as error:  # the client's own errors, and whatever a hostile answer makes a decoder raise
            self.error = PhotoError(
                f"Cannot download {self.shown}: {type(error).__name__}. Check the address and the network."
            )

    def abort(self) -> None:
        """End the download: a read that waits for the server fails at once."""
        self._is_aborted = True
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _follow(self, httpx: Any) -> None:
        url = httpx.URL(self.url)
        with httpx.Client(timeout=self.timeout, trust_env=not must_be_public()) as client:
            for _ in range(MAX_REDIRECTS + 1):
                if url.scheme not in ("http", "https"):
                    raise self._failed(f"it leads to an address of the kind '{url.scheme}'", "Pass the final address.")
                with client.stream("GET", **self._request(url)) as response:
                    location = response.headers.get("location")
                    if not 300 <= response.status_code < 400 or location is None:
                        return self._read(response)
                    url = url.join(location)
        raise self._failed(f"more than {MAX_REDIRECTS} redirects", "Check the address in a browser.")

    def _request(self, url: Any) -> dict[str, Any]:
        """Return the arguments of a request; under `PUBLIC_ONLY` it goes to the very address that was checked."""
        extensions: dict[str, Any] = {"trace": self._trace}
        if not must_be_public():
            return {"url": url, "extensions": extensions}
        addresses = socket.getaddrinfo(
            url.host, url.port or (443 if url.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
        found = [ipaddress.ip_address(address[4][0]) for address in addresses]
        if not all(address.is_global for address in found):
            raise self._failed("it leads to an address that is not public", f"Unset {PUBLIC_ONLY} to allow that.")
        headers = {"Host": url.netloc.decode().rpartition("@")[2]}
        extensions["sni_hostname"] = url.host
        return {"url": url.copy_with(host=str(found[0])), "headers": headers, "extensions": extensions}

    def _trace(self, event: str, info: dict[str, Any]) -> None:
        """Remember the connections, which the client opens itself."""
        if event.endswith("connect_tcp.complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket"))
        if self._is_aborted:
            raise TimeoutError

    def _read(self, response: Any) -> None:
        if response.status_code != 200:
            raise self._failed(
                f"the server answered with status {response.status_code}", "Check the address in a browser."
            )
        for chunk in response.iter_bytes():
            self.content += chunk
            if len(self.content) > MAX_DOWNLOAD_BYTES:
                raise self._failed(
                    f"it is larger than {MAX_DOWNLOAD_BYTES / 2**20:g} MiB",
                    "Download it yourself and pass a smaller file.",
                )

    def _failed(self, reason: str, remedy: str) -> PhotoError:
        return PhotoError(f"Cannot download {self.shown}: {reason}. {remedy}")
