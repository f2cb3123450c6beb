"""The model zoo, and where a checkpoint is found: in the package, in a folder, or on the Hub.

Whatever keeps a Hub checkpoint from loading is reported at once, on one line: the Hub is asked only if it is reachable,
and without retries.
"""

import socket
import threading
import urllib.request
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hf_geaau import facs
from hf_geaau.errors import CheckpointError, hide_secrets

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
BUNDLED_CHECKPOINT = CHECKPOINTS / "geaau-efficientnet_lite2-synthetic"

REACH_SECONDS = 1.5
"""How long the Hub may take to accept a connection before it counts as unreachable. Our choice."""

LOADED_FILES = ("config.json", "preprocessor_config.json", "model*.safetensors", "model*.safetensors.index.json")
"""What loading needs; nothing else of a repository is fetched, above all no code and no pickle."""

EXPORTED_FILES = ("onnx/model.onnx", "openvino/openvino_model.*")
"""Exported networks, which are fetched only if they are asked for."""

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


@dataclass(frozen=True)
class ZooEntry:
    """A checkpoint of the zoo.

    Attributes:
        name: Its name in `hf-geaau models` and for `--model` where it is bundled.
        data: Names of the datasets it is trained on, see `hf_geaau.data.list_datasets`.
        action_units: FACS numbers of its outputs; () for an expression encoder.
        recipe: For `hf-geaau train`, where the weights are not published.
        card: Its model card, as a path in the repository.
    """

    name: str
    data: tuple[str, ...]
    action_units: tuple[int, ...]
    card: str
    recipe: str | None = None

    @property
    def is_bundled(self) -> bool:
        """Whether its weights are in the package; else only its recipe is."""
        return self.recipe is None

    @property
    def path(self) -> Path:
        """The folder of a bundled checkpoint."""
        return CHECKPOINTS / self.name


ZOO = (
    ZooEntry(
        "geaau-efficientnet_lite2-synthetic",
        data=("synthetic",),
        action_units=facs.SYNTHETIC,
        card="hf_geaau/checkpoints/geaau-efficientnet_lite2-synthetic/README.md",
    ),
    ZooEntry("gee-fec", data=("fec",), action_units=(), card="model_cards/gee-fec.md", recipe="fec"),
    ZooEntry("bp4d", data=("bp4d",), action_units=facs.BP4D, card="model_cards/bp4d.md", recipe="bp4d"),
    ZooEntry("bp4d-plus", ("bp4d_plus",), facs.BP4D, card="model_cards/bp4d-plus.md", recipe="bp4d_plus"),
    ZooEntry("disfa", data=("disfa",), action_units=facs.DISFA, card="model_cards/disfa.md", recipe="disfa"),
)


def quoted(name: object) -> str:
    """Return a name for a message: in quotes, on one line, without secrets, and cut to its last 200 characters."""
    text = hide_secrets(" ".join(str(name).split()))
    return f"'{text}'" if len(text) <= 200 else f"'…{text[-200:]}'"


def local_checkpoint(name: str | Path | None = None) -> Path | None:
    """Return the folder of a checkpoint in the package or a directory; None for anything else, such as a Hub id."""
    source = str(BUNDLED_CHECKPOINT if name is None else name)
    entry = next((entry for entry in ZOO if entry.name == source and entry.is_bundled), None)
    path = Path(source).expanduser()
    return path if path.is_dir() else entry.path if entry else None


def find_checkpoint(
    name: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    *,
    exported: bool = False,
) -> Path:
    """Return the folder of a checkpoint; fetch it from the Hub if needed.

    Args:
        name: A directory, a name of the zoo, or a Hub id; None for the bundled checkpoint.
        revision: Branch, tag or commit of a Hub repository, such as "fold2".
        token: Of the Hub; None for the one that `hf auth login` stored.
        exported: Fetch also its exported networks.

    Returns:
        The folder: the one given, the bundled one, or a snapshot in the Hub's cache. A cached snapshot is used
        if the Hub is unreachable or `HF_HUB_OFFLINE=1` is set.

    Raises:
        CheckpointError: If there is none, or only a pickle. The message names repository, file, reason and remedy.
    """
    source = str(BUNDLED_CHECKPOINT if name is None else name)
    path = Path(source).expanduser()
    if path.exists():
        _check_directory(path)
        return path
    entry = next((entry for entry in ZOO if entry.name == source), None)
    if entry and entry.is_bundled:
        return entry.path
    if source.startswith((".", "/", "~")) or "\\" in source or source.count("/") > 1:
        raise CheckpointError(
            f"Cannot find the checkpoint {quoted(source)}: there is no such directory. Check the path."
        )
    if entry:
        raise CheckpointError(f"Cannot load '{source}': its weights are not published. {_suggestion(source)}")
    return _fetch(source, revision, token, LOADED_FILES + EXPORTED_FILES if exported else LOADED_FILES)


def _check_directory(directory: Path) -> None:
    """Name what a local checkpoint lacks, before transformers looks for it on the Hub."""
    if not directory.is_dir():
        raise CheckpointError(f"Cannot load the checkpoint {quoted(directory)}: it is a file. Pass its directory.")
    try:
        files = [path.name for path in directory.iterdir()]
    except OSError as error:
        raise CheckpointError(
            f"Cannot load the checkpoint {quoted(directory)}: {error.strerror}. Check its rights."
        ) from error
    if "config.json" not in files:
        raise CheckpointError(
            f"Cannot load the checkpoint {quoted(directory)}: it has no config.json. Save it with save_pretrained."
        )
    _check_weights(files, quoted(directory))


def _check_weights(files: list[str], where: str) -> None:
    if any(name.endswith(".safetensors") for name in files):
        return
    pickles = sorted(" ".join(name[:60].split()) for name in files if Path(name).suffix in PICKLES)
    instead = f", only {', '.join(pickles[:3])}, a pickle, which can run code" if pickles else ""
    raise CheckpointError(
        f"Cannot load the checkpoint {where}: it has no weights in safetensors{instead}. Save it again with"
        " save_pretrained."
    )


def _fetch(repo_id: str, revision: str | None, token: str | bool | None, wanted: tuple[str, ...]) -> Path:
    """Fetch a snapshot; fall back to the cache if the Hub is unreachable or answers with a server error."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise CheckpointError(
            f"`model` must be a directory or a Hub id such as 'owner/name', got {quoted(repo_id)}."
        ) from error
    where = f"'{repo_id}'" + (f" at revision {quoted(revision)}" if revision else "")
    files: dict[str, Any] = {"repo_id": repo_id, "revision": revision, "allow_patterns": list(wanted)}
    problem: Exception | None = None
    file, reason, remedy = "config.json", why_out_of_reach(), "Go online once to fetch it, or pass a directory."
    if reason is None:
        try:
            return _download(files, where, token)
        except CheckpointError:
            raise
        except Exception as error:  # the client raises its own, httpx's, OSError and ValueError
            problem, file = error, _file_of(error) or file
            reason, remedy = reason_and_remedy(error)
    if problem is None or (_status(problem) or 500) >= 500:  # any other answer of the Hub is final
        try:
            snapshot = Path(snapshot_download(**files, local_files_only=True))
            _check_directory(snapshot)
            return snapshot
        except (OSError, CheckpointError):  # the client's "not in the cache" and "incomplete" are OSErrors
            reason = f"not in the cache, and {reason}"
    raise CheckpointError(
        f"Cannot load the checkpoint {where}, file {file}: {reason}. {remedy} {_suggestion(repo_id)}"
    ) from problem


def _download(files: dict[str, Any], where: str, token: str | bool | None) -> Path:
    """List the repository, and fetch each file once."""
    from huggingface_hub import HfApi, constants, snapshot_download

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = HfApi().model_info(files["repo_id"], revision=files["revision"], token=token, timeout=timeout)
    names = [sibling.rfilename for sibling in info.siblings or []]
    if "config.json" not in names:
        raise CheckpointError(
            f"Cannot load the checkpoint {where}: it has no config.json on the Hub. {_suggestion(files['repo_id'])}"
        )
    _check_weights(names, f"{where} on the Hub")
    return Path(snapshot_download(**files, token=token))


def why_out_of_reach() -> str | None:
    """Return why the Hub is unreachable, or None if it can be reached, within `REACH_SECONDS`.

    The client itself finds out only by retrying each request for 23 seconds (measured).
    """
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    url = urlsplit(constants.ENDPOINT)
    proxy = None if urllib.request.proxy_bypass(url.hostname or "") else urllib.request.getproxies().get(url.scheme)
    target = urlsplit(proxy if "//" in proxy else f"//{proxy}") if proxy else url
    host, port = target.hostname or "", target.port or (80 if target.scheme == "http" else 443)
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
            outcome.append("")
        except socket.gaierror:
            outcome.append(f"the host '{host}' cannot be resolved")
        except OSError as error:
            outcome.append(f"'{host}' does not answer ({error})")

    # In a thread, because nothing else limits the time of a name lookup.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return (outcome[0] or None) if outcome else f"'{host}' does not answer within {REACH_SECONDS} s"


def reason_and_remedy(error: Exception) -> tuple[str, str]:
    """Return what an error of the Hub's client means, and what to do."""
    from huggingface_hub import constants, errors

    status = _status(error)
    text = hide_secrets(" ".join(str(getattr(error, "server_message", None) or error).split())).rstrip(".")
    endpoint = hide_secrets(constants.ENDPOINT)
    login = "Log in with `hf auth login`, or set HF_TOKEN."
    if isinstance(error, errors.GatedRepoError):
        return "its owners grant access on request only", f"Ask for access at {endpoint}, then log in."
    if isinstance(error, errors.RevisionNotFoundError):
        return "there is no such revision", "Check the names of its branches and tags."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{endpoint} has no such repository, or you may not see it", f"Check the id. {login}"
    if isinstance(error, errors.EntryNotFoundError):
        return "the repository lacks a file", "Ask its owners."
    if status == 401:
        return f"the Hub does not accept the token ({text})", login
    if status == 403:
        return f"the token does not allow it ({text[:150]})", "Use a token with the right to do so."
    if status is not None:
        return f"the Hub answers with status {status}", "Try again later."
    return f"{type(error).__name__}: {text[:200]}", "Check the connection and try again."


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _file_of(error: Exception) -> str | None:
    """Return the file that a failed request was for, from its address."""
    request = getattr(getattr(error, "response", None), "request", None)
    address = str(getattr(request, "url", ""))
    return address.split("/resolve/")[1].partition("/")[2] if "/resolve/" in address else None


def _suggestion(name: str) -> str:
    """Point to the entry of the zoo with the most similar name."""
    names = {entry.name: entry for entry in ZOO}
    near = get_close_matches(name.split("/")[-1], list(names), n=1, cutoff=0.5)
    if not near:
        return f"The zoo has {', '.join(names)}: see `hf-geaau models`."
    entry = names[near[0]]
    if entry.is_bundled:
        return f"Did you mean '{entry.name}', which is in the package?"
    did_you_mean = "" if name == entry.name else f"Did you mean '{entry.name}' of the zoo? "
    return (
        f"{did_you_mean}Its weights are not published, because its data is licensed. Make them with"
        f" `hf-geaau train {entry.recipe} --data-dir CROPS --output DIR` and pass DIR."
    )
