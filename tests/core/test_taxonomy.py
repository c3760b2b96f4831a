"""The taxonomy holds what the paper says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.errors import InputError
from tam_plugin.taxonomy import Sensitivity, TaskDistribution, TaskType, length_class


def test_paper_order_and_groups():
    assert [t.index for t in TaskType] == list(range(1, 9))
    assert TaskType(1).label == "Static Attributes Recognition" and TaskType(8).label == "OCR and Cross-modal Alignment"
    groups = {s: {t.index for t in TaskType if t.sensitivity is s} for s in Sensitivity}
    assert groups == {Sensitivity.RESOLUTION: {1, 5, 8}, Sensitivity.BALANCED: {2, 3, 7}, Sensitivity.FRAMES: {4, 6}}


@pytest.mark.parametrize("task", list(TaskType))
def test_labels_are_found_in_any_dress(task):
    for text in (task.label, task.label.upper(), task.name, task.name.replace("_", "-"), str(task.index), task.index):
        assert TaskType.from_label(text) is task


def test_unknown_label_lists_the_known_ones():
    with pytest.raises(InputError, match=r"unknown task type 'Singing'.*Action Recognition"):
        TaskType.from_label("Singing")


@given(st.lists(st.floats(-30, 30), min_size=8, max_size=8))
def test_softmax_of_logits(logits):
    found = TaskDistribution.from_logits(logits)
    assert math.isclose(sum(found.probabilities), 1.0, abs_tol=1e-9)
    assert found.confidence == max(found.probabilities)
    assert logits[found.task.index - 1] >= max(logits) - 1e-9
    assert list(found.as_dict()) == [t.label for t in TaskType]


@pytest.mark.parametrize(
    ("values", "words"),
    [((1.0,), "8 probabilities, got 1"), ((2.0,) + (0.0,) * 7, r"\[0, 1\]"), ((0.1,) * 8, "sum to 1, got 0.8")],
)
def test_bad_distributions(values, words):
    with pytest.raises(InputError, match=words):
        TaskDistribution(values)


@pytest.mark.parametrize(("duration_s", "expected"), [(29.9, "short"), (30, "medium"), (180, "medium"), (181, "long")])
def test_length_classes(duration_s, expected):
    assert length_class(duration_s) == expected
