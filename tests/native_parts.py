"""What tests of our own engine share."""

from __future__ import annotations

from typing import Any

import pytest

from prorank.backends.native import compiler, engine

COMMON: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "initializer_range": 0.1}
"""With larger random weights bfloat16 alone moves margins by a third of their deviation."""

runs_here = pytest.mark.skipif(
    not set(engine._NEEDED) <= compiler.processor_features(), reason="this processor has no AVX-512 with VNNI"
)
