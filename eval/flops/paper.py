"""What the paper publishes on operations (Tab. 2b, 2c and 13), and what those figures say of themselves."""

from __future__ import annotations

TABLE_2B = {"LLaVA-Video-7B": 1.0844e17, "Qwen2-VL-7B": 1.1732e17, "TallVA-A7B": 1.1976e17}
TABLE_2C = {1: 1.1519e17, 2: 1.1976e17, 4: 1.2603e17}
TABLE_13_BASELINE = (1.32e15, 1.55e15, 1.84e15, 2.54e15, 3.39e15)
TABLE_13_TALLVA = (1.38e15, 1.72e15, 1.97e15, 2.62e15, 3.55e15)
TABLE_13_DEFAULT = 2
"""Place of the default setting in both lists of Tab. 13."""

SAMPLES = 100
"""Tab. 2a times "100 samples"; Tab. 2b and 2c do not say how many theirs are of."""


def notes(duration_s: float, baseline_flops: float, tam_flops: float, by_k: dict[int, float]) -> list[str]:
    """What a reader must know who compares, worked out from both sides' figures.

    Args:
        duration_s: length of the video that ours are of.
        baseline_flops: ours for one question to the baseline at its default budget.
        tam_flops: ours for one question to TAM at its default budgets, on average.
        by_k: the same with k = 1, 2, 4 of 4 experts.
    """
    sample, default = TABLE_2B["LLaVA-Video-7B"] / SAMPLES, TABLE_13_BASELINE[TABLE_13_DEFAULT]
    second = TABLE_2C[2] / TABLE_2C[1] - 1
    further = (TABLE_2C[4] - TABLE_2C[2]) / 2 / TABLE_2C[1]
    points = (" ".join(f"{point / default:.2f}" for point in list_) for list_ in (TABLE_13_BASELINE, TABLE_13_TALLVA))
    return [
        f"absolute figures: the paper does not say what one covers. Its baseline's default is {default:.2e} a sample "
        f"(Tab. 13), {default / baseline_flops:.1f} times our one pass over the prompt; Tab. 2b, if of {SAMPLES} "
        f"samples as Tab. 2a is, {sample:.2e} a sample, {sample / baseline_flops:.1f} times. They must hold more than "
        "such a pass: the output layer for all tokens and 2048 new tokens together add about a fifth. Compare ratios",
        f"TAM over baseline: {TABLE_2B['TallVA-A7B'] / TABLE_2B['LLaVA-Video-7B']:.3f} in Tab. 2b and "
        f"{TABLE_13_TALLVA[TABLE_13_DEFAULT] / default:.3f} in Tab. 13, at budgets that the paper does not publish; "
        f"ours is {tam_flops / baseline_flops:.3f} for {duration_s:g} s of video, and follows the policy's budgets",
        f"Tab. 2c: operations are linear in k; each further expert adds {by_k[2] / by_k[1] - 1:.1%} of ours at k = 1 "
        f"({duration_s:g} s). The paper's second adds {second:.1%}, its third and fourth {further:.1%} each: no count "
        "at one budget does that, so its three runs did not do the same work",
        "Tab. 13 gives its points in operations, not in budgets; over its baseline's default they are, baseline "
        f"{next(points)}, TallVA {next(points)}",
    ]
