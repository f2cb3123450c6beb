"""Fetch many photos by URL: resumable, bounded, polite to each host, with a report of what is gone.

A file appears under its name only when its whole content arrived and decodes as an image.
"""

import csv
import errno
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hf_geaau.errors import DatasetError, PhotoError
from hf_geaau.faces.photos import MAX_DOWNLOAD_BYTES, read_photo
from hf_geaau.files import whole_file

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
        url: What was asked for.
        status: HTTP status of the last answer, 0 if there was none.
        reason: In words.
        attempts: How often it was tried.
        final: "yes" if another run need not try, "no" if the trouble may pass.
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
        dead: Links without a photo, those that earlier runs found included.
        path: The csv file that lists them.
    """

    fetched: int
    present: int
    dead: list[DeadLink]
    path: Path


@dataclass(frozen=True)
class Manners:
    """How a download behaves towards the servers.

    Attributes:
        workers: Connections at a time, over all hosts.
        rate: Requests per second to one host, at most.
        timeout: Seconds that a server may take to answer, and to go on after a pause.
        retries: How often a request is repeated after a passing trouble.
        back_off: Seconds before the first repetition; doubled each time, with up to a quarter of chance added. A
            longer `Retry-After` is honoured.
        user_agent: Says who asks.
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


class _Gate:
    """Lets requests to a host through one after another, with a pause between."""

    def __init__(self, rate: float) -> None:
        self._pause, self._next = 1 / rate, dict[str, float]()
        self._lock = threading.Lock()

    def wait(self, host: str, stop: threading.Event) -> None:
        """Sleep until it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(host, now))
            self._next[host] = turn + self._pause
        stop.wait(turn - now)

    def hold(self, host: str, seconds: float) -> None:
        """Let nobody ask this host for a while."""
        with self._lock:
            self._next[host] = max(self._next.get(host, 0.0), time.monotonic() + seconds)


def fetch_all(
    urls: Iterable[str],
    folder: Path,
    name: Callable[[str], str],
    *,
    manners: Manners,
    report: Path,
    retry_dead: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DownloadReport:
    """Fetch the photos of all URLs that `folder` lacks.

    Args:
        urls: Distinct URLs.
        folder: Where the photos go.
        name: Gives the file name of a URL.
        manners: Of the requests.
        report: The csv file of dead links; those that it calls final are not asked for again.
        retry_dead: Ask for them all the same.
        progress: Called with URLs done and in all.

    Raises:
        DatasetError: If a file cannot be written, for instance on a full disk.
    """
    from huggingface_hub.utils import httpx  # the hub's client library, whichever major version it brings

    wanted = list(urls)
    with os.scandir(folder) as entries:
        there = {entry.name for entry in entries}
    known = {} if retry_dead else {link.url: link for link in _read_report(report) if link.final == "yes"}
    missing = [url for url in wanted if name(url) not in there]
    dead = [known[url] for url in missing if url in known]
    todo = [url for url in missing if url not in known]
    stop, gate = threading.Event(), _Gate(manners.rate)
    # http1 and one connection per worker: friendlier than a burst over one multiplexed connection.
    limits = httpx.Limits(max_connections=manners.workers, max_keepalive_connections=manners.workers)
    fetched, done = 0, len(wanted) - len(todo)
    with (
        httpx.Client(
            timeout=manners.timeout, limits=limits, headers={"User-Agent": manners.user_agent}, follow_redirects=True
        ) as client,
        ThreadPoolExecutor(manners.workers) as pool,
    ):
        job = _Fetcher(httpx, client, gate, stop, manners)
        try:
            saved = time.monotonic()
            for link in _bounded(pool, lambda url: job.fetch(url, folder / name(url)), todo, 4 * manners.workers):
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
            raise _unwritable(folder, error) from error
        finally:
            stop.set()  # sleeping requests wake up and give up; what arrived stays
            pool.shutdown(cancel_futures=True)
            _write_report(report, dead)
    return DownloadReport(fetched, len(wanted) - len(missing), dead, report)


def _bounded(pool: ThreadPoolExecutor, work: Callable[[str], Any], todo: list[str], ahead: int) -> Iterable[Any]:
    """Run tasks and give results as they come, never with more than `ahead` of them waiting."""
    waiting: set[Future[Any]] = set()
    for url in todo:
        waiting.add(pool.submit(work, url))
        if len(waiting) >= ahead:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


@dataclass(frozen=True)
class _Fetcher:
    """Fetches single photos; shared by the threads."""

    httpx: Any
    client: Any
    gate: _Gate
    stop: threading.Event
    manners: Manners

    def fetch(self, url: str, target: Path) -> DeadLink | None:
        """Fetch one photo, with repetitions.

        Returns:
            None if it is there now.
        """
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        if not host or not url.lower().startswith(("http://", "https://")):
            return DeadLink(url, 0, "no http address", 0, "yes")
        link = None
        for attempt in range(self.manners.retries + 1):
            self.gate.wait(host, self.stop)
            if self.stop.is_set():
                return DeadLink(url, 0, "interrupted", attempt, "no")
            content, link, pause = self._attempt(url, attempt)
            if content is not None:
                with whole_file(target) as part:
                    part.write_bytes(content)
                return None
            if link is None or link.final == "yes" or attempt == self.manners.retries:
                return link
            if link.status in (429, 503):
                self.gate.hold(host, pause)  # the server asks all of us to slow down
            self.stop.wait(pause)
        return link

    def _attempt(self, url: str, attempt: int) -> tuple[bytes | None, DeadLink | None, float]:
        """Ask once: the content, or what went wrong and how long to pause before the next attempt."""
        pause = min(self.manners.back_off * 2**attempt * random.uniform(1, 1.25), _LONGEST_PAUSE)
        try:
            status, content, asked_pause, place = self._get(url)
        except self.httpx.TimeoutException:
            return None, DeadLink(url, 0, f"no answer in {self.manners.timeout:g} s", attempt + 1, "no"), pause
        except (self.httpx.InvalidURL, UnicodeError):
            return None, DeadLink(url, 0, "no valid address", attempt + 1, "yes"), pause
        except self.httpx.HTTPError as error:
            return None, DeadLink(url, 0, type(error).__name__, attempt + 1, "no"), pause
        if status in _RETRIED:
            return None, DeadLink(url, status, "server trouble", attempt + 1, "no"), max(pause, asked_pause)
        if status != 200:
            return None, DeadLink(url, status, "no such photo", attempt + 1, "yes"), pause
        if _PLACEHOLDER in place:
            return None, DeadLink(url, status, "photo no longer available", attempt + 1, "yes"), pause
        if content is None:
            size = f"more than {MAX_DOWNLOAD_BYTES / 2**20:g} MiB"
            return None, DeadLink(url, status, size, attempt + 1, "yes"), pause
        try:
            read_photo(content)
        except PhotoError:
            return None, DeadLink(url, status, "content is no complete image", attempt + 1, "yes"), pause
        return content, None, pause

    def _get(self, url: str) -> tuple[int, bytes | None, float, str]:
        """Give status, content (None if too large), the pause that the server asks for, and the final address."""
        content = bytearray()
        # A server that drips keeps within the timeout of each read, so the whole gets a limit too.
        deadline = time.monotonic() + 10 * self.manners.timeout
        with self.client.stream("GET", url) as response:
            asked = response.headers.get("Retry-After", "")
            pause = min(float(asked), _LONGEST_PAUSE) if asked.isdigit() else 0.0
            if response.status_code != 200:
                return response.status_code, b"", pause, str(response.url)
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_DOWNLOAD_BYTES:
                    return response.status_code, None, pause, str(response.url)
                if time.monotonic() > deadline or self.stop.is_set():
                    raise self.httpx.ReadTimeout("too slow")
            return response.status_code, bytes(content), pause, str(response.url)


def _read_report(path: Path) -> list[DeadLink]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            DeadLink(row["url"], int(row["status"]), row["reason"], int(row["attempts"]), row["final"]) for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        names = ", ".join(entry.name for entry in fields(DeadLink))
        raise DatasetError(
            f"The report of dead links must have the columns {names}, got something else in {str(path)!r}. Remove it; "
            "dead links are then asked for again."
        ) from error


def _write_report(path: Path, dead: list[DeadLink]) -> None:
    try:
        with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([entry.name for entry in fields(DeadLink)])
            writer.writerows(astuple(link) for link in sorted(dead, key=lambda link: link.url))
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _unwritable(folder: Path, error: OSError) -> DatasetError:
    if error.errno == errno.ENOSPC:
        return DatasetError(
            f"Photos must fit on the disk of {str(folder)!r}, got a full disk. Free some space and run the same "
            "command again; it goes on where it stopped."
        )
    return DatasetError(
        f"Photos must be writable to {str(folder)!r}, got: {error.strerror or error}. Check the folder and its rights, "
        "and run the same command again; it goes on where it stopped."
    )
