"""Four ranks with the groups of two, three and four that tests of context parallel need."""

import on_ranks
import pytest
import ranks_context as work

from llama_from_scratch.parallel.launch import Ranks


@pytest.fixture(scope="module")
def ranks():
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        ranks.run(work.make_groups)
        yield ranks
