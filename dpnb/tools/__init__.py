"""Tools for a folder of pictures, before it is a dataset: collect, look for duplicates, repair, caption.

    sync.sync(host, collection, folder)    photos of a collection -> new/ -> raw/, with licence and author
    duplicates.find_duplicates(folder)     equal and nearly equal pictures, and which to keep
    repair.look(folder)                    corrupt and misnamed pictures and captions, and what mends them
    tagging.start(folder, model)           raw/ -> train/, captioned by a local model in a process of its own

What `repair` and `duplicates` change goes through aside.py: nothing is deleted, nothing is written over, all of it can
be undone. Each is a command (`dpnb repair`, ...) and a panel (dpnb/widgets) too.
"""

# Here, since the command line names them without loading a tool.
DEFAULT_THRESHOLD = 8
"""So many of the 128 bits of two pictures' hashes may differ in near copies."""
DEFAULT_LEAST_PX = 1024
"""The smallest width and height of a photo that is fetched."""
