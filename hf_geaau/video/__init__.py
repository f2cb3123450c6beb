"""From photos, folders, videos and cameras to faces with identities over time.

`sources` lists what there is to look at, `decoding` reads frames, `tracking` links faces across them, `stream` runs
all of it with the network at the same time, `tables` writes the results down, `overlay` draws them into a video.
"""
