"""Request → question → budget → frames, and the user's turn that tells of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tam_plugin.budget import BudgetPolicy, FixedPolicy, VisualBudget, task_instruction, time_instruction
from tam_plugin.config import InstructionConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.lmms.host import Host, Row
from tam_plugin.eval.lmms.questions import Question, question_of
from tam_plugin.eval.lmms.requests import Request
from tam_plugin.eval.lmms.settings import Settings, capped
from tam_plugin.taxonomy import TaskDistribution, TaskType
from tam_plugin.video import SampledVideo, VideoInfo, probe_video, sample_frames
from tam_plugin.video.scaling import NATIVE_SIZE_LIMIT

if TYPE_CHECKING:
    from tam_plugin.inductor import Inductor

TEXT_STEP = 256
"""Room for text is kept in steps of this many tokens, so that few policies are made."""
_LONGEST_S = 99_999.0


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
            "damaged_frames": list(video.damaged_frames),
        }


class Decider:
    """Decides each request's frames and stride.

    Args:
        settings: policy, Inductor and instruction that were asked for; what they leave open is the checkpoint's.
        host: the model.

    Raises:
        ConfigError: the policy cannot be read or followed, or there is none.
        InputError: the Inductor cannot be read.
    """

    def __init__(self, settings: Settings, host: Host) -> None:
        policy = settings.own_policy() or host.policy
        if policy is None:
            raise ConfigError(
                f"{settings.pretrained!r} is no TAM checkpoint and so has no policy: pass policy=fixed:FRAMES:STRIDE "
                "or policy=FILE in model_args"
            )
        self.policy = capped(policy, settings.max_frames)
        self.inductor_name = settings.inductor or host.inductor
        changes = {"time": settings.time_instruction, "task": settings.task_instruction}
        self.instruction: InstructionConfig = dataclasses.replace(
            host.instruction, **{name: value for name, value in changes.items() if value is not None}
        )
        self._settings = settings
        self._host = host
        self._policies: dict[tuple[int, int], BudgetPolicy | FixedPolicy] = {}
        self._inductor: Inductor | None = None
        self._last: tuple[Any, SampledVideo] | None = None
        self._adapted(0, 0)

    def decide(self, request: Request, output_tokens: int) -> Decided:
        """The request's budget, its frames and its turn.

        Args:
            request: the request.
            output_tokens: length of the answer, at most.

        Raises:
            InputError: there is no question to decide by, the video cannot be used, or the text fills the context.
            ConfigError: no other request would fare better.
        """
        path = request.video()
        info = probe_video(path, image_fps=self._settings.image_fps)
        question = question_of(request.context, request.doc)
        distribution = self._classify(request, question, info)
        policy = self._policy_for(request.context, output_tokens)
        budget = self._budget(policy, distribution, info)
        video = self._sample(path, budget)
        if len(video) < budget.num_frames:  # a damaged file can hold fewer than its header says
            budget = self._budget(policy, distribution, dataclasses.replace(info, num_frames=len(video)))
            if budget.num_frames != len(video):
                video = self._sample(path, budget)
        row = Row(
            turn=self._turn(request.context, budget, video.info.duration_s, [float(t) for t in video.timestamps_s]),
            video=video,
            budget=budget,
            continuation=request.continuation,
        )
        self._check_fits(row, output_tokens)
        return Decided(row, question, distribution)

    def _check_fits(self, row: Row, output_tokens: int) -> None:
        limit = self._host.context_tokens
        tokens = self._host.count_tokens(row.turn) + row.budget.visual_tokens
        if limit is not None and tokens + output_tokens > limit:
            raise InputError(
                f"a prompt of {tokens} tokens ({row.budget.visual_tokens} of them the video's) and an answer of "
                f"{output_tokens} do not fit the {limit} of this model: take fewer frames or a coarser stride"
            )

    def _classify(self, request: Request, question: Question | None, info: VideoInfo) -> TaskDistribution | None:
        if question is not None:
            return self._load_inductor().classify(question.text, info.duration_s, question.options or None)
        if isinstance(self.policy, FixedPolicy):
            return None
        raise InputError(
            f"task {request.task}, row {request.doc_id}: its text {request.context[:60]!r} holds no question to decide "
            "frames by; use policy=fixed:FRAMES:STRIDE for this task"
        )

    def _budget(
        self, policy: BudgetPolicy | FixedPolicy, distribution: TaskDistribution | None, info: VideoInfo
    ) -> VisualBudget:
        if isinstance(policy, FixedPolicy):
            return policy.budget(distribution, info.duration_s, video_frames=info.num_frames)
        assert distribution is not None
        return policy.budget(distribution, info.duration_s, video_frames=info.num_frames)

    def _sample(self, path: str, budget: VisualBudget) -> SampledVideo:
        """The frames; those of the request before it, if they are the same (the options of one question)."""
        key = (path, budget.num_frames)
        if self._last is None or self._last[0] != key:
            settings = self._settings
            self._last = None  # the old frames are freed before the new ones are made
            video = sample_frames(
                path,
                budget,
                backend=settings.backend,
                size=NATIVE_SIZE_LIMIT,
                image_fps=settings.image_fps,
                max_damaged=settings.max_damaged,
            )
            self._last = key, video
        return self._last[1]

    def _turn(self, context: str, budget: VisualBudget, duration_s: float, times: list[float]) -> str:
        lines = []
        if self.instruction.time:
            lines.append(time_instruction(duration_s, times))
        if self.instruction.task and budget.decided_task is not None:
            lines.append(task_instruction(budget.decided_task))
        return "\n".join([*lines, context])

    def _policy_for(self, context: str, output_tokens: int) -> BudgetPolicy | FixedPolicy:
        """The policy that leaves room for the text, the times of as many frames as it may take, and the answer."""
        frames = self.policy.max_frames if isinstance(self.policy, BudgetPolicy) else self.policy.num_frames
        longest = VisualBudget.of(frames, 1, task=TaskType.FINE_GRAINED_ATTRIBUTES)
        text = self._turn(context, longest, _LONGEST_S, [_LONGEST_S] * frames)
        tokens = self._host.count_tokens(text)
        try:
            return self._adapted(-(-tokens // TEXT_STEP) * TEXT_STEP, output_tokens)
        except ConfigError as error:
            raise InputError(f"a text of {tokens} tokens and an answer of {output_tokens}: {error}") from error

    def _adapted(self, text_tokens: int, output_tokens: int) -> BudgetPolicy | FixedPolicy:
        key = (text_tokens, output_tokens)
        if key not in self._policies:
            self._policies[key] = self._host.adapted(self.policy, text_tokens, output_tokens)
        return self._policies[key]

    def _load_inductor(self) -> Inductor:
        if self._inductor is None:
            from tam_plugin.inductor import Inductor

            try:
                self._inductor = Inductor.from_pretrained(self.inductor_name)
            except InputError as error:  # no other request would mend it
                raise ConfigError(str(error)) from error
        return self._inductor
