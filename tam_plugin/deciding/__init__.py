"""From a question to the model's input: decide the budget, sample the frames, write the instruction."""

from tam_plugin.deciding.decider import Decider, Decision
from tam_plugin.deciding.instruction import compose_question, instruction_lines
from tam_plugin.deciding.sampling import Sampling, sample, take

__all__ = ["Decider", "Decision", "Sampling", "compose_question", "instruction_lines", "sample", "take"]
