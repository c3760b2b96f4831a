"""Loss curves of training runs as one figure (Fig. 12a): L_ori over steps, from the Trainer's own state files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tam_plugin.errors import InputError, require
from tam_plugin.files import read_json

STATE = "trainer_state.json"
STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)))
"""Lines that differ in grey too."""


def read_curve(run: str | Path) -> tuple[list[int], list[float]]:
    """Steps and losses that a run logged: L_ori where the plugin logged it, else the Trainer's loss.

    Args:
        run: the run's output folder, or a ``checkpoint-N`` of it.

    Raises:
        InputError: no state file, or nothing logged.
    """
    folder = Path(run)
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    places = [folder / STATE, *(c / STATE for c in reversed(checkpoints))]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{str(run)!r} holds no {STATE}: expected the output folder of a training run")
    try:
        history = read_json(file, strict=False)["log_history"]
    except (OSError, KeyError) as error:
        raise InputError(f"{str(file)!r} cannot be read: {error}") from error
    points = [(row["step"], row.get("L_ori", row.get("loss"))) for row in history if "L_ori" in row or "loss" in row]
    if not points:
        raise InputError(f"{str(file)!r} logged no loss")
    return [int(step) for step, _ in points], [float(loss) for _, loss in points]


def smoothed(losses: Sequence[float], weight: float) -> list[float]:
    """Exponential average, corrected for its start; ``weight`` 0 leaves the values as they are."""
    average, result = 0.0, []
    for count, loss in enumerate(losses, 1):
        average = weight * average + (1 - weight) * loss
        result.append(average / (1 - weight**count))
    return result


def draw_curves(runs: Sequence[tuple[str, str | Path]], out: str | Path, *, smoothing: float = 0.6) -> None:
    """Draw named runs into one PNG; each raw curve lies faintly behind its average.

    Args:
        runs: name and folder of each.
        out: the file.
        smoothing: see :func:`smoothed`.

    Raises:
        InputError: see :func:`read_curve`; or ``smoothing`` outside [0, 1).
        MissingDependencyError: matplotlib is not there.
    """
    if not 0 <= smoothing < 1:
        raise InputError(f"smoothing {smoothing!r}: expected 0 or more and less than 1")
    curves = [(name, *read_curve(folder)) for name, folder in runs]
    require("matplotlib", needed_for="drawing loss curves", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, (name, steps, losses) in enumerate(curves):
        shade, style = f"C{number}", STYLES[number % len(STYLES)]
        axes.plot(steps, losses, color=shade, alpha=0.2, linewidth=1)
        axes.plot(steps, smoothed(losses, smoothing), color=shade, linestyle=style, linewidth=2, label=name)
    axes.set_xlabel("step", fontsize=13)
    axes.set_ylabel("L_ori", fontsize=13)
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=12)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)
