"""Artifacts on disk: content-addressed, written atomically, resumable, safe to build twice at once.

A stage hands its inputs and a function that fills a directory to :meth:`Workspace.produce`. The
same inputs always name the same directory; what is there is complete, because it was renamed
into place after everything in it, the manifest last, had reached the disk.
"""

from toolkit.workspace.manifest import Artifact, FileEntry, Json, Manifest
from toolkit.workspace.places import (
    default_root,
    root_at,
    root_option,
    user_cache_dir,
    user_cache_path,
)
from toolkit.workspace.store import Pruned, Workspace
from toolkit.workspace.uses import record_use, users_by_key

__all__ = [
    "Artifact",
    "FileEntry",
    "Json",
    "Manifest",
    "Pruned",
    "Workspace",
    "default_root",
    "record_use",
    "root_at",
    "root_option",
    "user_cache_dir",
    "user_cache_path",
    "users_by_key",
]
