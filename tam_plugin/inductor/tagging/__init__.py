"""Queries labelled or said anew by a language model behind an OpenAI-compatible chat endpoint.

:func:`tag.tag` asks for the task type, :func:`paraphrase.paraphrase` for other words, and :func:`translate.translate`
for another language. Each is a :class:`Job`, and :func:`run_job` does the rest: it asks, keeps every answer, and
resumes after a kill.
"""

from __future__ import annotations

from tam_plugin.inductor.tagging.jobs import Job, run_job
from tam_plugin.inductor.tagging.replies import Reply, ReplyError
from tam_plugin.inductor.tagging.settings import ChatSettings

__all__ = ["ChatSettings", "Job", "Reply", "ReplyError", "run_job"]
