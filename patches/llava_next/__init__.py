"""TAM on LLaVA-NeXT, room by room; none of it changes anything unless a model or a flag says tam.

``records`` holds the patch records, and imports what they do from the other rooms when a wrapper runs: ``command_line``
(arguments and the checks before anything is loaded), ``data`` (the training set), ``model`` (tower, tokens, loss, what
trains) and ``checkpoints`` (loading, upgrading, saving, merging).
"""

from __future__ import annotations

from tam_plugin.patches.llava_next.data.modality import VideoModality, video
from tam_plugin.patches.llava_next.records import RECORDS

__all__ = ["RECORDS", "VideoModality", "video"]
