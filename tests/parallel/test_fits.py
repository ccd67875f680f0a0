"""What does not fit is refused, with a cure that does, from a config and a mesh alone."""

import re

import pytest
from pipeline_on_ranks import deep_config

from llama_from_scratch import family
from llama_from_scratch.parallel.fits import n_micro_batches, refuse_unfit
from llama_from_scratch.parallel.mesh import Mesh
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan

FOUR = deep_config(4)


def asked(mesh, *, batch_size=8, micro_batch_size=1, seq_len=16, config=FOUR, **how):
    refuse_unfit(config, mesh, batch_size=batch_size, micro_batch_size=micro_batch_size,
                 seq_len=seq_len, **how)


@pytest.mark.parametrize(("mesh", "how", "words"), [
    (Mesh(pp=8), {}, "got 4 layers for 8 pieces (ranks times chunks). Take at most 6 pieces"),
    (Mesh(pp=2), dict(pipeline=PipelinePlan(schedule="interleaved", n_chunks=4)),
     "got 4 layers for 8 pieces"),
    (Mesh(pp=4), dict(micro_batch_size=4), "needs at least 4 micro-batches"),
    (Mesh(pp=2), dict(micro_batch_size=None), "needs at least 2 micro-batches"),
    (Mesh(pp=2), dict(micro_batch_size=3), "got micro_batch_size=3 for the 8 rows of a rank. "
                                           "Choose one of 1, 2, 4, 8"),
    (Mesh(dp=3), {}, "got 8 rows for 3 ranks. Choose a batch of 6 or 9 rows"),
    (Mesh(tp=3), {}, "for 3 ranks. This model fits on"),
])
def test_what_does_not_fit_is_refused_with_a_cure(mesh, how, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        asked(mesh, **how)


def test_what_fits_is_not_refused():
    asked(Mesh(pp=4, dp=2))
    asked(Mesh(pp=2, tp=2), pipeline=PipelinePlan(schedule="interleaved", n_chunks=3))
    asked(Mesh(tp=8, pp=16, dp=128), config=family.config("llama-3.1-405b"), batch_size=2048,
          seq_len=8192)


def test_rows_are_divided_into_equal_micro_batches():
    assert n_micro_batches(8, 2) == 4 and n_micro_batches(8, None) == 1
