"""The cost of wrong task types: frames and tokens that a policy gives, by the true type."""

from __future__ import annotations

from collections.abc import Iterable

from tam_plugin.budget.policy import BudgetPolicy
from tam_plugin.taxonomy import AnyTask, TaskDistribution


def bought(
    judged: Iterable[tuple[TaskDistribution, AnyTask, float | None]], policy: BudgetPolicy
) -> dict[str, dict[str, float]]:
    """The mean budget of the questions of each true task type, and what it would be if the type were known.

    Args:
        judged: for each question what the Inductor says, the true type, and the video's duration in seconds or None.
        policy: the policy.

    Returns:
        By the type's label, in the order of their indices: ``count``, and the means ``frames``, ``visual_tokens``,
        ``frames_of_label`` and ``visual_tokens_of_label``.
    """
    sums: dict[AnyTask, list[float]] = {}
    for distribution, task, duration_s in judged:
        got = policy.budget(distribution, duration_s)
        known = policy.budget(TaskDistribution.one_hot(task), duration_s)
        numbers = (1, got.num_frames, got.visual_tokens, known.num_frames, known.visual_tokens)
        sums[task] = [a + b for a, b in zip(sums.get(task, [0.0] * len(numbers)), numbers, strict=True)]
    names = ("frames", "visual_tokens", "frames_of_label", "visual_tokens_of_label")
    return {
        task.label: {
            "count": int(sums[task][0]),
            **{name: total / sums[task][0] for name, total in zip(names, sums[task][1:], strict=True)},
        }
        for task in sorted(sums, key=lambda task: task.index)
    }
