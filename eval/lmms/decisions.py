"""Request → question → budget → frames, and the user's turn that tells of them."""

from __future__ import annotations

import dataclasses
from typing import Any

from tam_plugin.config import InstructionConfig
from tam_plugin.deciding import Decider, Sampling, instruction_lines, sample, take
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.lmms.questions import Question, question_of
from tam_plugin.eval.lmms.requests import Request
from tam_plugin.eval.lmms.settings import Settings
from tam_plugin.patches.hosts.model import HostModel, Row
from tam_plugin.taxonomy import TaskDistribution
from tam_plugin.video import SampledVideo, Video, open_video


@dataclasses.dataclass(frozen=True)
class Decided:
    """A request ready for the model.

    Attributes:
        row: what the host computes.
        question: what the Inductor was asked; None where the request holds no question.
        distribution: what it said.
    """

    row: Row
    question: Question | None
    distribution: TaskDistribution | None

    def record(self) -> dict[str, Any]:
        """Its part of the sample log."""
        budget, video = self.row.budget, self.row.video
        return {
            "question": self.question and self.question.text,
            "task_type": None if budget.decided_task is None else budget.decided_task.label,
            "confidence": budget.confidence,
            "extension": budget.extension,
            "frames": budget.num_frames,
            "stride": budget.pool_stride,
            "fallback": budget.fallback,
            "duration_s": video.info.duration_s,
            "timestamps_s": [round(float(t), 3) for t in video.timestamps_s],
            "sampler": video.sampler,
            "damaged_frames": list(video.damaged_frames),
        }


class RequestDecider:
    """Decides each request's frames and stride: :class:`tam_plugin.deciding.Decider` for lmms-eval's requests.

    Args:
        settings: policy, Inductor and instruction that were asked for; what they leave open is the checkpoint's.
        model: the loaded model.

    Raises:
        ConfigError: the policy cannot be read or followed, or there is none.
        InputError: the Inductor cannot be read.
    """

    def __init__(self, settings: Settings, model: HostModel) -> None:
        policy = settings.own_policy() or model.policy
        if policy is None:
            raise ConfigError(
                f"{settings.pretrained!r} is not a TAM checkpoint and has no policy: pass policy=fixed:FRAMES:STRIDE "
                "or policy=FILE in model_args"
            )
        self.policy = policy if settings.max_frames is None else policy.capped(settings.max_frames)
        changes = {"time": settings.time_instruction, "task": settings.task_instruction}
        self.instruction: InstructionConfig = dataclasses.replace(
            model.instruction, **{name: value for name, value in changes.items() if value is not None}
        )
        self.inductor_name = model.inductor if settings.inductor is None else settings.inductor
        self._sampling = Sampling(
            sampler=settings.sampler,
            backend=settings.backend,
            image_fps=settings.image_fps,
            max_damaged=settings.max_damaged,
        )
        self._model = model
        self._decider = Decider(
            self.policy,
            layout=model.layout,
            instruction=self.instruction,
            inductor=self.inductor_name,
            count_tokens=model.count_tokens,
        )
        self._last: tuple[Any, SampledVideo] | None = None

    def decide(self, request: Request, output_tokens: int) -> Decided:
        """The request's budget, its frames and its turn.

        Args:
            request: the request.
            output_tokens: length of the answer, at most.

        Raises:
            InputError: there is no question to decide by, the video cannot be used, or the text fills the context.
            ConfigError: every other request would fail in the same way.
        """
        path = request.video()
        question = question_of(request.context, request.doc)
        if question is None and self.policy.reads_question:
            raise InputError(
                f"task {request.task}, row {request.doc_id}: its text {request.context[:60]!r} contains no question "
                "to decide the frames by; use policy=fixed:FRAMES:STRIDE for this task"
            )
        with open_video(path, image_fps=self._sampling.image_fps) as opened:
            decision = self._decider.decide(
                question and question.text,
                opened.info.duration_s,
                video_frames=opened.info.num_frames,
                options=question and question.options,
                text=request.context,
                output_tokens=output_tokens,
            )
            decision, video = sample(opened, decision, self._sampling, self._take)
        row = Row(
            turn="\n".join([*instruction_lines(decision.budget, video, self.instruction), request.context]),
            video=video,
            budget=decision.budget,
            continuation=request.continuation,
        )
        self._check_fits(row, output_tokens)
        return Decided(row, question, decision.distribution)

    def _take(self, opened: Video, num_frames: int, sampling: Sampling, **asked: Any) -> SampledVideo:
        """The frames; those of the request before it, if they are the same (the options of one question)."""
        key = (opened.path, num_frames, asked["query"], asked["distribution"])
        if self._last is None or self._last[0] != key:
            self._last = None  # the old frames are freed before the new ones are made
            self._last = key, take(opened, num_frames, sampling, **asked)
        return self._last[1]

    def _check_fits(self, row: Row, output_tokens: int) -> None:
        limit = self._model.layout.context_tokens
        tokens = self._model.count_tokens(row.turn) + row.budget.visual_tokens
        if limit is not None and tokens + output_tokens > limit:
            raise InputError(
                f"a prompt of {tokens} tokens ({row.budget.visual_tokens} of them the video's) and an answer of "
                f"{output_tokens} do not fit the {limit} of this model: take fewer frames or a coarser stride"
            )
