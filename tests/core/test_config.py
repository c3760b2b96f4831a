"""TamConfig: round trips, partial mappings, and refusals that name field and value."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin import TamConfig
from tam_plugin.config import POOL_MODES, PROJECTOR_GATES, ROUTER_MODES, MoeConfig, ProjectorConfig
from tam_plugin.errors import ConfigError

CONFIGS = st.builds(
    TamConfig,
    moe=st.integers(1, 8).flatmap(
        lambda e: st.builds(
            MoeConfig,
            num_experts=st.just(e),
            top_k=st.integers(1, e),
            router_mode=st.sampled_from([mode for mode in ROUTER_MODES if mode != "by_task"]),  # it takes one expert
            router_noise_std=st.floats(0, 1),
        )
    ),
    projector=st.builds(ProjectorConfig, gate=st.sampled_from(PROJECTOR_GATES), pool_mode=st.sampled_from(POOL_MODES)),
    inductor=st.none() | st.text(min_size=1),
    policy=st.none() | st.just({"version": 1}),
)


@given(CONFIGS)
def test_round_trip_through_json_and_yaml(config):
    plain = config.to_dict()
    assert TamConfig.from_dict(json.loads(json.dumps(plain))) == config
    assert TamConfig.from_dict(yaml.safe_load(yaml.safe_dump(plain))) == config


def test_defaults_are_the_papers():
    config = TamConfig.from_dict({})
    assert (config.moe.num_experts, config.moe.top_k) == (4, 2)
    assert (config.moe.balance_loss_weight, config.moe.z_loss_weight) == (1e-3, 5e-4)
    assert config.projector.strides == (1, 2, 3, 4) and config.projector.gate == "resolution"


def test_partial_mappings_keep_the_other_defaults(tmp_path):
    path = tmp_path / "tam.yaml"
    path.write_text("moe: {num_experts: 8}\nprojector: {strides: [1, 2]}\n")
    config = TamConfig.from_yaml(path)
    assert (config.moe.num_experts, config.moe.top_k, config.projector.strides) == (8, 2, (1, 2))
    assert config.replace(moe={"top_k": 1}).moe == MoeConfig(num_experts=8, top_k=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"moe": {"num_experts": 0}}, "MoeConfig.num_experts = 0: expected a whole number from 1"),
        ({"moe": {"num_experts": 2.0}}, "MoeConfig.num_experts = 2.0"),
        ({"moe": {"top_k": 5}}, "MoeConfig.top_k = 5: expected a whole number from 1 to 4"),
        ({"moe": {"router_mode": "best"}}, "MoeConfig.router_mode = 'best': expected one of top_k"),
        ({"moe": {"z_loss_weight": -1}}, "MoeConfig.z_loss_weight = -1"),
        ({"moe": {"experts": 4}}, "moe: unknown field 'experts'"),
        ({"moe": [4]}, "moe: expected a mapping, got [4]"),
        ({"projector": {"strides": [2, 1]}}, "ProjectorConfig.strides = (2, 1)"),
        ({"projector": {"image_stride": 5}}, "ProjectorConfig.image_stride = 5"),
        ({"instruction": {"time": "yes"}}, "InstructionConfig.time = 'yes': expected true or false"),
        ({"policy": 3}, "TamConfig.policy = 3"),
        ({"version": 9}, "TamConfig.version = 9"),
        ({"tower": 1}, "TamConfig: unknown field 'tower'"),
        (7, "TamConfig: expected a mapping, got 7"),
    ],
)
def test_bad_values_are_refused_by_name(values, words):
    with pytest.raises(ConfigError) as caught:
        TamConfig.from_dict(values)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_sections_must_be_sections():
    with pytest.raises(ConfigError, match=r"TamConfig.moe = \{\}"):
        TamConfig(moe={})
