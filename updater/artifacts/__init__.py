"""Artifacts: from received bytes to an unpacked, hashed tree, and back from a tree to proof that it is the same.

    from updater.artifacts.unpack import unpack  # not from here: going to an installed release needs none of it
    unpacked = unpack(stream, Path("releases/.tmp-unpack"))
    unpacked.manifest.digest            # the content address
    compare(tree, unpacked.manifest)    # [] as long as nobody changed anything

An artifact is hostile until proved otherwise: see :mod:`updater.artifacts.unpack` for what is accepted.
"""

from updater.artifacts.decompress import Reader
from updater.artifacts.manifest import Entry, Manifest, blob_id, encode
from updater.artifacts.verify import Difference, compare, hash_file

__all__ = [
    "Difference",
    "Entry",
    "Manifest",
    "Reader",
    "blob_id",
    "compare",
    "encode",
    "hash_file",
]
