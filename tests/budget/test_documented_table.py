"""The table in docs/budgets.md is what the default policy decides."""

import re
from pathlib import Path

from tam_plugin import BudgetPolicy, TaskDistribution

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "budgets.md"


def test_documented_budgets_are_the_policys():
    policy = BudgetPolicy.from_yaml()
    rows = re.findall(r"^\| (\d+) s \|(.*)\|$", DOCUMENT.read_text(), flags=re.M)
    assert len(rows) >= 10
    for duration_s, cells in rows:
        for task, cell in zip((8, 2, 4), cells.split("|"), strict=True):
            found = policy.budget(TaskDistribution.one_hot(task), float(duration_s))
            assert cell.strip() == f"{found.num_frames} × stride {found.pool_stride} = {found.visual_tokens}"
