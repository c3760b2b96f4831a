"""Task distribution and duration → visual budget: the policy, its data, and the prompt's instruction."""

from tam_plugin.budget.fixed import FixedPolicy
from tam_plugin.budget.instruction import task_instruction, time_instruction
from tam_plugin.budget.policy import BudgetPolicy
from tam_plugin.budget.visual_budget import VisualBudget, newline_tokens, pooled_side

__all__ = [
    "BudgetPolicy",
    "FixedPolicy",
    "VisualBudget",
    "newline_tokens",
    "pooled_side",
    "task_instruction",
    "time_instruction",
]
