"""Find the faces of a photo and predict their action units.

You will see, for each face, the action units that are present, with probability and intensity.
"""

from skimage import data  # only for the photo: NASA's portrait of Eileen Collins, public domain

from hf_geaau import facs
from hf_geaau.pipeline import load_pipeline

PHOTO = data.astronaut()  # or a path, a PIL image, an RGB array, or a list of these

pipe = load_pipeline()  # the bundled weights; or a directory, or a Hub id
names = {unit.label: unit.name for unit in facs.ACTION_UNITS.values()}
for number, face in enumerate(pipe(PHOTO)):
    print(f"face {number}, detector score {face['score']:.2f}")
    for label in face["present"]:
        probability, intensity = face["action_units"][label], face["intensities"][label]
        print(f"  {label}  {names[label]:22s} probability {probability:.2f}  intensity {intensity:.1f} of 5")
