"""Files that survive a kill: replacement in one step, locks, append-only journals, fingerprints.

Everything that writes a result, records a run's progress or resumes a run uses this package, so that there is one
answer to what is on the disk after a kill, a full disk or a loss of power. It does not know what is stored.
"""

from __future__ import annotations

from tam_plugin.storage.atomic import (
    PART_SUFFIX,
    link_file,
    move_files,
    part_folder,
    part_path,
    replace_descriptor,
    replace_file,
    replace_folder,
    replace_path,
    replace_records,
    sync_folder,
)
from tam_plugin.storage.fingerprints import data_file, difference, file_sha256, values_sha256
from tam_plugin.storage.journal import Journal, Line, json_line, put_aside, rank_of, rank_path, rank_paths, read_journal
from tam_plugin.storage.locks import hold, locked, release

__all__ = [
    "PART_SUFFIX",
    "Journal",
    "Line",
    "data_file",
    "difference",
    "file_sha256",
    "hold",
    "json_line",
    "link_file",
    "locked",
    "move_files",
    "part_folder",
    "part_path",
    "put_aside",
    "rank_of",
    "rank_path",
    "rank_paths",
    "read_journal",
    "release",
    "replace_descriptor",
    "replace_file",
    "replace_folder",
    "replace_path",
    "replace_records",
    "sync_folder",
    "values_sha256",
]
