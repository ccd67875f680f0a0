"""Which styles the twin asks PyTorch for."""

import pytest
from pipeline_on_ranks import deep_config
from torch.distributed.tensor.parallel import SequenceParallel

from llama_from_scratch.parallel.native_plan import plan


@pytest.mark.parametrize("is_sequence_parallel", (False, True))
def test_every_matrix_of_every_layer_has_a_style(is_sequence_parallel):
    styles = plan(deep_config(3), is_sequence_parallel=is_sequence_parallel)
    for i in range(3):
        for name in ("attention.wq", "attention.wk", "attention.wv", "attention.wo",
                     "feed_forward.w_gate", "feed_forward.w_up", "feed_forward.w_down"):
            assert f"layers.{i}.{name}" in styles
    norms = [name for name, style in styles.items() if isinstance(style, SequenceParallel)]
    assert len(norms) == (7 if is_sequence_parallel else 0)
