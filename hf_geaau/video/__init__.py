"""From photos, folders, videos and cameras to faces with identities over time.

`sources` lists inputs, `decoding` reads frames, `tracking` links faces across them, `stream` runs all of it at the same
time as the network, `tables` stores the rows, `run` writes a table of a whole run, `summary` summarizes it, `overlay`
writes the annotated video.
"""
