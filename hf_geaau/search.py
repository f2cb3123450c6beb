"""Find faces with a similar expression, and group faces by expression, with the expression embedding."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hf_geaau.backends import load_analyzer
from hf_geaau.errors import FaceNotFoundError, MissingExtraError
from hf_geaau.video.sources import Source
from hf_geaau.video.stream import FaceStream, Settings, SourceEnd

SHEET_SIZE = (128, 128)  # pixels of a crop on a contact sheet


@dataclass(frozen=True, eq=False)
class ExpressionFace:
    """A face and its expression.

    Attributes:
        source: Name of the photo or video.
        frame: Frame number, 0 in a photo.
        time_s: Seconds since the first frame; None in a photo.
        face: Position among the faces there, the largest first.
        embedding: (D,) float32, L2-normalized.
        crop: (128, 128, 3) uint8 RGB, aligned.
    """

    source: str
    frame: int
    time_s: float | None
    face: int
    embedding: NDArray[np.float32]
    crop: NDArray[np.uint8]


class ExpressionEmbedder:
    """Find faces and embed their expressions, with an expression encoder or the one inside an AU model.

    Args:
        model: Directory, name of the zoo, or Hub id; None for the bundled checkpoint.
        device: Such as "cuda"; None for the accelerator if there is one.

    Raises:
        CheckpointError: If the checkpoint does not load.
        DeviceError: If torch cannot use the device.
    """

    def __init__(self, model: str | Path | None = None, device: str | None = None) -> None:
        self.analyzer = load_analyzer(model, device=device, keep=("embedding",), must_predict=False)

    def faces(self, sources: Iterable[Source], fps: float | None = None) -> Iterator[ExpressionFace | SourceEnd]:
        """Yield every face of photos and videos with its expression embedding, and the end of every source.

        Args:
            sources: From `hf_geaau.video.sources.find_sources`.
            fps: Frames per second to look at in videos; None for all.
        """
        for item in FaceStream(self.analyzer, Settings(fps=fps, keep_images=True)).run(sources):
            if isinstance(item, SourceEnd):
                yield item
                continue
            assert item.image is not None
            for index, face in enumerate(item.faces):
                assert face.embedding is not None
                (crop,) = self.analyzer.runner.crop(item.image, face.points, SHEET_SIZE)
                yield ExpressionFace(item.source.name, item.number, item.time_s, index, face.embedding, crop)


def expression_distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared L2 distances (...) of L2-normalized embeddings (..., D), 0 to 4: those of the triplet loss.

    Example:
        >>> float(expression_distance(np.float32([1, 0]), np.float32([0, 1])))
        2.0
    """
    return np.asarray(((first - second) ** 2).sum(-1))


def rank_by_expression(query: NDArray[np.float32], faces: list[ExpressionFace]) -> list[tuple[float, ExpressionFace]]:
    """Sort faces by the distance of their expression to a query's, the nearest first.

    Args:
        query: (D,) embedding, L2-normalized.
        faces: To be ranked.

    Returns:
        Pairs of squared L2 distance (0 to 4), the distance of the triplet loss, and face.

    Example:
        >>> face = ExpressionFace("a.jpg", 0, None, 0, np.float32([0, 1]), np.zeros((1, 1, 3), np.uint8))
        >>> rank_by_expression(np.float32([1, 0]), [face])[0][0]
        2.0
    """
    if not faces:
        return []
    distances = expression_distance(np.stack([face.embedding for face in faces]), query)
    return [(float(distances[index]), faces[index]) for index in np.argsort(distances, kind="stable")]


def cluster_by_expression(embeddings: NDArray[np.float32], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Group faces by expression.

    Args:
        embeddings: (n, D), L2-normalized.
        count: Number of groups.
        seed: Seed of the starting points.

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
        raise FaceNotFoundError(f"Cannot make {count} groups of {len(embeddings)} faces. Ask for fewer groups.")
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtraError(
            "Grouping needs scikit-learn. Install it with `pip install 'hf_geaau[video]'`."
        ) from error
    groups = KMeans(count, n_init=10, random_state=seed).fit_predict(embeddings)
    order = np.argsort(-np.bincount(groups, minlength=count), kind="stable")
    return np.argsort(order)[groups].astype(np.int64)
