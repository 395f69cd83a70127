"""Settings from files and flags."""

from __future__ import annotations

import pytest

from prorank.config import build_config, config_dict, first_difference
from prorank.training.refine.config import RefineConfig
from prorank.training.warmup.config import WarmupConfig


def test_none_is_a_word_where_it_is_a_choice():
    assert build_config(WarmupConfig, "warmup", {"warmup": {"prior": "query"}}, {"prior": "none"}).prior == "none"
    assert build_config(WarmupConfig, "warmup", {}, {"relevance_threshold": "none"}).relevance_threshold is None


@pytest.mark.parametrize(("name", "value"), [("steps", "none"), ("prior", "null"), ("prior", "all"), ("steps", "x")])
def test_what_does_not_fit_is_named(name, value):
    with pytest.raises(ValueError, match=f"--warmup.{name}"):
        build_config(WarmupConfig, "warmup", {}, {name: value})


def test_flags_over_file_over_defaults():
    file = {"warmup": {"steps": 7, "lora_rank": 2}}
    config = build_config(WarmupConfig, "warmup", file, {"steps": "9", "extra_rewards": "[a.b:c=0.5]"})
    assert (config.steps, config.lora_rank, config.extra_rewards) == (9, 2, ("a.b:c=0.5",))


def test_a_setting_younger_than_the_saved_ones_stood_at_its_default():
    saved = config_dict(RefineConfig(list_size=12))
    assert first_difference(RefineConfig(list_size=12), saved) is None
    assert first_difference(RefineConfig(list_size=13), saved) == ("list_size", 12, 13)
    del saved["positive_rank_to"]
    assert first_difference(RefineConfig(list_size=12), saved) is None
    assert first_difference(RefineConfig(list_size=12, positive_rank_to=9), saved) == ("positive_rank_to", 0, 9)
