import dataclasses

import pytest

from llama_from_scratch import family
from llama_from_scratch.checkpoint.plain import plain_layers
from llama_from_scratch.checkpoint.strict import listed, refuse_differences, refuse_impossible_sizes


def test_what_is_missing_extra_and_misshapen_is_listed_together():
    with pytest.raises(ValueError, match=r"tensors in there .* a is missing; b is \(3,\), not "
                                         r"\(2,\); c is not of this model"):
        refuse_differences({"b": (3,), "c": (1,)}, {"a": (1,), "b": (2,)}, where="there")
    with pytest.raises(ValueError, match=r"and 22 more"):
        refuse_differences({}, {f"t{i}": (1,) for i in range(30)}, where="there")
    refuse_differences({"a": (1,)}, {"a": (1,)}, where="there")


def test_a_list_is_sorted_and_cut_at_eight():
    assert listed(list("cab")) == "a; b; c"
    assert listed([str(i) for i in range(9)]) == "0; 1; 2; 3; 4; 5; 6; 7 and 1 more"


@pytest.mark.parametrize(("changes", "message"), [
    (dict(dim=10**15, n_heads=1, n_kv_heads=1), r"dim is the length of every norm, so it cannot "
                                                r"exceed the 1000 numbers in the files"),
    (dict(vocab_size=10**18), r"describes one that is too large for any machine"),
    (dict(explicit_head_dim=2**40), r"wq has a row for each channel of each head, so these cannot "
                                    r"exceed the 1000 numbers in the files; there says 4 heads of"),
    (dict(vocab_size=2**62), r"describes one that is too large for any machine"),
    (plain_layers(2, ffn_dim=10**18), r"describes one that is too large for any machine"),
])
def test_a_forged_size_is_refused_before_anything_is_made_of_it(changes, message):
    config = dataclasses.replace(family.tiny("llama-3"), **changes)
    with pytest.raises(ValueError, match=message):
        refuse_impossible_sizes(config, n_values=1000, where="there")


def test_sizes_that_files_may_have_pass():
    refuse_impossible_sizes(family.tiny("llama-3"), n_values=64, where="there")
