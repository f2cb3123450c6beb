"""Fetch many photos by URL: resumable, with few connections, at a limited rate per host, and a report of dead links.

A file appears under its name only when its whole content arrived and decodes as an image.
"""

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from hf_geaau.errors import DatasetError, PhotoError
from hf_geaau.files import whole_file

from .csv_files import read_rows, write_rows

REPORT = "dead_links.csv"
USER_AGENT = "hf_geaau (research data download; reads each photo once)"

_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE = 120.0
_SAVE_EVERY = 30.0  # seconds between reports, so that a kill costs little
# Flickr answers for a deleted photo by leading to this picture, with status 200.
_PLACEHOLDER = "photo_unavailable"


@dataclass(frozen=True)
class DeadLink:
    """A URL that gave no photo.

    Attributes:
        status: HTTP status of the last answer, 0 if there was none.
        reason: In words.
        attempts: Number of requests.
        final: "yes" if another run need not try, "no" if the failure may be temporary.
    """

    url: str
    status: int
    reason: str
    attempts: int
    final: str


@dataclass(frozen=True)
class DownloadReport:
    """What a run did.

    Attributes:
        fetched: Photos that this run added.
        present: Photos that were there before.
        dead: Links without a photo, including those of earlier runs.
        path: The csv file that lists them.
    """

    fetched: int
    present: int
    dead: list[DeadLink]
    path: Path


@dataclass(frozen=True)
class DownloadSettings:
    """How a download treats the servers.

    Attributes:
        workers: Connections at a time, over all hosts.
        rate: Requests per second to one host, at most.
        timeout: Seconds that a server may take to answer, and between parts of the answer.
        retries: How often a request is repeated after a temporary failure.
        back_off: Seconds before the first repetition; doubled each time, plus up to a quarter at random. A longer
            `Retry-After` is honored.
        user_agent: Header that names the client.
    """

    workers: int = 8
    rate: float = 5.0
    timeout: float = 20.0
    retries: int = 3
    back_off: float = 1.0
    user_agent: str = USER_AGENT

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("retries", 0), ("back_off", 0)):
            if getattr(self, name) < least:
                raise DatasetError(
                    f"`{name}` must be at least {least}, got {getattr(self, name)}. Leave it out for the default."
                )
        for name in ("rate", "timeout"):
            if not getattr(self, name) > 0:
                raise DatasetError(
                    f"`{name}` must be above 0, got {getattr(self, name)}. Leave it out for the default."
                )


class _RateLimiter:
    """Spaces the requests to each host."""

    def __init__(self, rate: float) -> None:
        self._pause, self._next = 1 / rate, dict[str, float]()
        self._lock = threading.Lock()

    def wait(self, host: str, stop: threading.Event) -> None:
        """Sleep until a request to this host is due."""
        with self._lock:
            now = time.monotonic()
            due = max(now, self._next.get(host, now))
            self._next[host] = due + self._pause
        stop.wait(due - now)

    def hold(self, host: str, seconds: float) -> None:
        """Allow no request to this host for a while."""
        with self._lock:
            self._next[host] = max(self._next.get(host, 0.0), time.monotonic() + seconds)


def fetch_all(
    urls: Iterable[str],
    folder: Path,
    name: Callable[[str], str],
    *,
    settings: DownloadSettings,
    report: Path,
    retry_dead: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DownloadReport:
    """Fetch the photos of all URLs that `folder` lacks.

    Args:
        urls: Distinct URLs.
        folder: Where the photos go.
        name: Returns the file name of a URL.
        settings: Of the requests.
        report: The csv file of dead links; those that it calls final are not requested again.
        retry_dead: Request them nevertheless.
        progress: Called with the number of URLs done and the number of all URLs.

    Raises:
        DatasetError: If a file cannot be written, for instance on a full disk.
    """
    from huggingface_hub.utils import httpx  # the hub's client library, whichever major version it brings

    wanted = list(urls)
    with os.scandir(folder) as entries:
        on_disk = {entry.name for entry in entries}
    known = {} if retry_dead else {link.url: link for link in _read_report(report) if link.final == "yes"}
    missing = [url for url in wanted if name(url) not in on_disk]
    dead = [known[url] for url in missing if url in known]
    todo = [url for url in missing if url not in known]
    stop, limiter = threading.Event(), _RateLimiter(settings.rate)
    # http1 and one connection per worker: friendlier than a burst over one multiplexed connection.
    limits = httpx.Limits(max_connections=settings.workers, max_keepalive_connections=settings.workers)
    fetched, done = 0, len(wanted) - len(todo)
    with (
        httpx.Client(
            timeout=settings.timeout, limits=limits, headers={"User-Agent": settings.user_agent}, follow_redirects=True
        ) as client,
        ThreadPoolExecutor(settings.workers) as pool,
    ):
        fetcher = _Fetcher(httpx, client, limiter, stop, settings)
        try:
            saved = time.monotonic()
            for link in _bounded(pool, lambda url: fetcher.fetch(url, folder / name(url)), todo, 4 * settings.workers):
                if link is None:
                    fetched += 1
                else:
                    dead.append(link)
                if time.monotonic() - saved > _SAVE_EVERY:
                    _write_report(report, dead)
                    saved = time.monotonic()
                if progress:
                    done += 1
                    progress(done, len(wanted))
        except OSError as error:
            raise _write_error(folder, error) from error
        finally:
            stop.set()  # sleeping requests wake up and give up; what arrived stays
            pool.shutdown(cancel_futures=True)
            _write_report(report, dead)
    return DownloadReport(fetched, len(wanted) - len(missing), dead, report)


def _bounded(
    pool: ThreadPoolExecutor, fetch: Callable[[str], DeadLink | None], todo: list[str], ahead: int
) -> Iterator[DeadLink | None]:
    """Fetch URLs and yield results as they come, never with more than `ahead` of them waiting."""
    waiting: set[Future[DeadLink | None]] = set()
    urls = iter(todo)
    while waiting := waiting | {pool.submit(fetch, url) for url in islice(urls, ahead - len(waiting))}:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


@dataclass(eq=False)
class _RequestError(Exception):
    """A request that gave no photo."""

    reason: str
    status: int = 0  # of HTTP; 0 without an answer
    is_final: bool = True
    pause: float = 0.0  # seconds that the server asks to wait


@dataclass(frozen=True)
class _Fetcher:
    """Fetches single photos; shared by the threads."""

    httpx: ModuleType
    client: Any  # httpx.Client, of whichever major version the hub library brings
    limiter: _RateLimiter
    stop: threading.Event
    settings: DownloadSettings

    def fetch(self, url: str, target: Path) -> DeadLink | None:
        """Fetch one photo, with repetitions; return None if it was fetched."""
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        if not host or not url.lower().startswith(("http://", "https://")):
            return DeadLink(url, 0, "no http address", 0, "yes")
        for attempt in range(self.settings.retries + 1):
            self.limiter.wait(host, self.stop)
            if self.stop.is_set():
                return DeadLink(url, 0, "interrupted", attempt, "no")
            try:
                content = self._photo(url)
            except _RequestError as error:
                failure = error
            else:
                with whole_file(target) as part:
                    part.write_bytes(content)
                return None
            if failure.is_final or attempt == self.settings.retries:
                break
            back_off = min(self.settings.back_off * 2**attempt * random.uniform(1, 1.25), _LONGEST_PAUSE)
            pause = max(back_off, failure.pause)
            if failure.status in (429, 503):
                self.limiter.hold(host, pause)  # the server asks all workers to slow down
            self.stop.wait(pause)
        return DeadLink(url, failure.status, failure.reason, attempt + 1, "yes" if failure.is_final else "no")

    def _photo(self, url: str) -> bytes:
        from hf_geaau.faces.photos import read_photo

        try:
            content = self._content(url)
        except self.httpx.TimeoutException as error:
            raise _RequestError(f"no answer in {self.settings.timeout:g} s", is_final=False) from error
        except (self.httpx.InvalidURL, UnicodeError) as error:
            raise _RequestError("no valid address") from error
        except self.httpx.HTTPError as error:
            raise _RequestError(type(error).__name__, is_final=False) from error
        try:
            read_photo(content)
        except PhotoError as error:
            raise _RequestError("content is no complete image", 200) from error
        return content

    def _content(self, url: str) -> bytes:
        from hf_geaau.faces.fetching import MAX_DOWNLOAD_BYTES

        content = bytearray()
        # A server that sends byte by byte keeps within the timeout of each read, so the whole gets a limit too.
        deadline = time.monotonic() + 10 * self.settings.timeout
        with self.client.stream("GET", url) as response:
            status = response.status_code
            if status in _RETRIED:
                retry_after = response.headers.get("Retry-After", "")
                pause = min(float(retry_after), _LONGEST_PAUSE) if retry_after.isdigit() else 0.0
                raise _RequestError("server error", status, is_final=False, pause=pause)
            if status != 200:
                raise _RequestError("no such photo", status)
            if _PLACEHOLDER in str(response.url):
                raise _RequestError("photo no longer available", status)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_DOWNLOAD_BYTES:
                    raise _RequestError(f"more than {MAX_DOWNLOAD_BYTES / 2**20:g} MiB", status)
                if time.monotonic() > deadline or self.stop.is_set():
                    raise self.httpx.ReadTimeout("too slow")
        return bytes(content)


def _read_report(path: Path) -> list[DeadLink]:
    if not path.is_file():
        return []
    try:
        return read_rows(DeadLink, path)
    except ValueError as error:
        raise DatasetError(
            f"Cannot read the report of dead links {str(path)!r}: {error}. Remove it; dead links are then requested "
            "again."
        ) from error


def _write_report(path: Path, dead: list[DeadLink]) -> None:
    try:
        write_rows(DeadLink, sorted(dead, key=lambda link: link.url), path)
    except OSError as error:
        raise _write_error(path.parent, error) from error


def _write_error(folder: Path, error: OSError) -> DatasetError:
    if error.errno == errno.ENOSPC:
        return DatasetError(
            f"Disk full while saving photos to {str(folder)!r}. Free some space and run the same command again; it "
            "resumes where it stopped."
        )
    return DatasetError(
        f"Cannot save photos to {str(folder)!r}: {error.strerror or error}. Check the folder and its rights, and run "
        "the same command again; it resumes where it stopped."
    )
