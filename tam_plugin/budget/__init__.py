"""Task distribution and duration → visual budget: policies and token layouts."""

from tam_plugin.budget.fixed import BASELINE_FRAMES, BASELINE_STRIDE, FixedPolicy
from tam_plugin.budget.layout import HOST_STRIDE, TokenLayout
from tam_plugin.budget.named import read_policy, register_policy
from tam_plugin.budget.policy import BudgetPolicy
from tam_plugin.budget.protocol import Policy
from tam_plugin.budget.reducers import TokenReducer, register_reducer
from tam_plugin.budget.visual_budget import VisualBudget

__all__ = [
    "BASELINE_FRAMES",
    "BASELINE_STRIDE",
    "HOST_STRIDE",
    "BudgetPolicy",
    "FixedPolicy",
    "Policy",
    "TokenLayout",
    "TokenReducer",
    "VisualBudget",
    "read_policy",
    "register_policy",
    "register_reducer",
]
