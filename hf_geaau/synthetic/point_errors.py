"""Draw the errors that `hf_geaau.FaceDetector` makes in the five points, from a distribution fitted to measured ones.

An error is in the frame of the upright crop, x to the right and y down, in eye distances of CROP_TEMPLATE: (5, 2). The
model: a mean that follows pose and size, plus a multivariate t (heavy tails) whose scale follows them too.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# 1075 faces found of 1100 photos: benchmarks/point_errors.py --face-model ICT-FaceKit --count 1100
MEAN = np.array(
    [[ 0.0066, -0.0155, -0.0066, -0.0155, -0.    ,  0.0368, -0.0004, -0.0276,  0.0004, -0.0276],
     [ 0.0101,  0.0373,  0.0101, -0.0373, -0.0851, -0.    , -0.0153,  0.0142, -0.0153, -0.0142],
     [ 0.0088, -0.0772, -0.0088, -0.0772, -0.    , -0.1593,  0.0458, -0.0223, -0.0458, -0.0223],
     [ 0.0108,  0.0933, -0.0108,  0.0933, -0.    , -0.2675, -0.0023, -0.0236,  0.0023, -0.0236],
     [ 0.0915, -0.0058, -0.0915, -0.0058,  0.    , -0.002 ,  0.0651,  0.143 , -0.0651,  0.143 ],
     [-0.001 ,  0.0045,  0.001 ,  0.0045, -0.    ,  0.0102, -0.0011,  0.0046,  0.0011,  0.0046]]
)  # fmt: skip
FACTOR = np.array(
    [[ 0.0255,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ],
     [ 0.002 ,  0.0277,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ],
     [ 0.0053, -0.0029,  0.0248,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ],
     [ 0.0027,  0.0116, -0.0012,  0.025 ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ],
     [ 0.0134,  0.0007,  0.011 , -0.0031,  0.0268,  0.    ,  0.    ,  0.    ,  0.    ,  0.    ],
     [-0.    ,  0.0094,  0.0012,  0.0061, -0.    ,  0.0257,  0.    ,  0.    ,  0.    ,  0.    ],
     [ 0.0122, -0.0001, -0.0016, -0.0025,  0.0094, -0.001 ,  0.032 ,  0.    ,  0.    ,  0.    ],
     [-0.002 ,  0.0105,  0.0026, -0.0064,  0.0011,  0.0038,  0.0024,  0.0326,  0.    ,  0.    ],
     [ 0.001 ,  0.001 ,  0.0125, -0.0008,  0.0094,  0.001 , -0.0005, -0.0024,  0.0319,  0.    ],
     [-0.001 , -0.0016,  0.0021,  0.0124, -0.0011,  0.0038,  0.0025,  0.0292, -0.0002,  0.0143]]
)  # fmt: skip
SCALE = np.array(
    [ 0.    , -0.    ,  1.6369, -0.0425,  1.698 , -0.0866]
)  # fmt: skip
FREEDOM = 6.0


def features(yaw: ArrayLike, pitch: ArrayLike, face_pixels: ArrayLike) -> NDArray[np.float64]:
    """Describe what errors depend on.

    Args:
        yaw, pitch: Head pose, radians.
        face_pixels: Side of the detector's box in the photo.

    Returns:
        (..., 6): 1, sin yaw, sin² yaw, sin pitch, sin² pitch, doublings of the size over 64 pixels (within ±2).

    Example:
        >>> features(0.0, 0.0, 128).tolist()
        [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    yaw, pitch, size = np.broadcast_arrays(
        np.sin(yaw), np.sin(pitch), np.clip(np.log2(np.divide(face_pixels, 64)), -2, 2)
    )
    return np.stack([np.ones_like(yaw), yaw, yaw**2, pitch, pitch**2, size], -1)


def sample_point_errors(rng: np.random.Generator, yaw: float, pitch: float, face_pixels: float) -> NDArray[np.float32]:
    """Draw the error of one face.

    Example:
        >>> sample_point_errors(np.random.default_rng(0), 0.1, 0.0, 80.0).shape
        (5, 2)
    """
    described = features(yaw, pitch, face_pixels)
    heavy = np.sqrt(FREEDOM / rng.chisquare(FREEDOM))
    error = described @ MEAN + np.exp(described @ SCALE) * heavy * (FACTOR @ rng.standard_normal(10))
    return error.reshape(5, 2).astype(np.float32)
