"""Find faces with a similar expression, and group faces by it: what the expression embedding is for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hf_geaau.errors import FaceNotFoundError, MissingExtraError
from hf_geaau.faces import Face, FaceDetector
from hf_geaau.models.loading import check_device, load_checkpoint
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import FaceStream, Settings, SourceEnd

SHEET_SIDE = 128  # pixels of a crop on a contact sheet


@dataclass(frozen=True, eq=False)
class ExpressionFace:
    """A face and its expression.

    Attributes:
        source: Name of the photo or video.
        frame: Frame number, 0 in a photo.
        time_s: Seconds; None in a photo.
        face: Which of the faces there, the largest first.
        embedding: (D,), L2-normalised.
        crop: (128, 128, 3) uint8, aligned.
    """

    source: str
    frame: int
    time_s: float | None
    face: int
    embedding: NDArray[np.float32]
    crop: NDArray[np.uint8]


class ExpressionEmbedder:
    """Finds faces and embeds their expressions, by an expression encoder or by the one inside an AU model.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        device: Such as "cuda"; None for what is there.

    Raises:
        CheckpointError: If the checkpoint does not load.
        DeviceError: If torch cannot use the device.
    """

    def __init__(self, model: str | Path | None = None, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_device(self.device)
        network, self.processor = load_checkpoint(model)
        self.network, self.detector = network.to(self.device), FaceDetector()

    def faces(self, sources: Iterable[Source], fps: float | None = None) -> Iterator[ExpressionFace | SourceEnd]:
        """Give every face of photos and videos with its expression embedding, and the end of every source.

        Args:
            sources: From `hf_geaau.video.sources.find_sources`.
            fps: Frames a second that are looked at in videos; None for all.
        """
        for item in FaceStream(self, Settings(fps=fps, keep_images=True)).run(list(sources)):
            if isinstance(item, SourceEnd):
                yield item
                continue
            assert item.image is not None
            for index, seen in enumerate(item.faces):
                crop = self._shown(item.image, seen.face.points)
                where = item.source.name, item.number, item.time_s, index
                yield ExpressionFace(*where, seen.values["embedding"], crop)

    def find(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces of an RGB image."""
        return self.detector(image)

    def crop(self, image: NDArray[np.uint8], points: NDArray[Any]) -> torch.Tensor:
        """Cut aligned crops for (n, 5, 2) points: (n, 3, H, W)."""
        return self.processor(image, points=points, return_tensors="pt").pixel_values

    def analyse(self, crops: torch.Tensor) -> dict[str, NDArray[Any]]:
        """Embed (n, 3, H, W) crops: {"embedding": (n, D)}, L2-normalised."""
        with torch.inference_mode():
            embedding = self.network(pixel_values=crops.to(self.device)).expression_embedding
        return {"embedding": embedding.float().cpu().numpy()}

    def _shown(self, image: NDArray[np.uint8], points: NDArray[Any]) -> NDArray[np.uint8]:
        size = {"height": SHEET_SIDE, "width": SHEET_SIDE}
        crop = self.processor(image, points=points, do_rescale=False, do_normalize=False, size=size).pixel_values[0]
        return np.moveaxis(np.asarray(crop), 0, -1).astype(np.uint8)


def rank_by_expression(query: NDArray[Any], faces: list[ExpressionFace]) -> list[tuple[float, ExpressionFace]]:
    """Sort faces by the distance of their expression to a query's, the nearest first.

    Args:
        query: (D,) embedding, L2-normalised.
        faces: What to rank.

    Returns:
        Pairs of squared L2 distance (0 to 4) and face; the triplet loss of training is of the same distance.

    Example:
        >>> face = ExpressionFace("a.jpg", 0, None, 0, np.float32([0, 1]), np.zeros((1, 1, 3), np.uint8))
        >>> rank_by_expression(np.float32([1, 0]), [face])[0][0]
        2.0
    """
    if not faces:
        return []
    distances = ((np.stack([face.embedding for face in faces]) - query) ** 2).sum(1)
    return [(float(distances[place]), faces[place]) for place in np.argsort(distances, kind="stable")]


def cluster_by_expression(embeddings: NDArray[Any], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Group faces by expression.

    Args:
        embeddings: (n, D), L2-normalised.
        count: How many groups.
        seed: Of the starts.

    Returns:
        (n,) group of each face, 0 the largest.

    Raises:
        FaceNotFoundError: If there are fewer faces than groups.
        MissingExtraError: Without the extra "video".

    Source:
        k-means from k-means++ starts (Arthur and Vassilvitskii 2007), the best of ten; scikit-learn's.

    Example:
        >>> cluster_by_expression(np.float32([[1, 0], [1, 0], [0, 1]]), 2).tolist()
        [0, 0, 1]
    """
    if len(embeddings) < count:
        raise FaceNotFoundError(f"Groups must be no more than faces, got {count} groups of {len(embeddings)} faces.")
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtraError(
            "Grouping needs scikit-learn, which is missing. Install it with `pip install 'hf_geaau[video]'`."
        ) from error
    found = KMeans(count, n_init=10, random_state=seed).fit_predict(embeddings)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return np.argsort(order)[found].astype(np.int64)
