"""Task distribution and duration → visual budget: the policy, its data, and the prompt's instruction."""

from tam_plugin.budget.visual_budget import VisualBudget, newline_tokens, pooled_side

__all__ = ["VisualBudget", "newline_tokens", "pooled_side"]
