import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llama_from_scratch.generate import screen as module
from llama_from_scratch.generate.screen import Screen


def head_of(weight):
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(weight.dtype)
    head.weight = nn.Parameter(weight)
    return head


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_the_largest_logit_is_found_among_few_candidates(dtype):
    torch.manual_seed(0)
    head = head_of((torch.randn(5000, 96) * torch.rand(5000, 1)).to(dtype))
    screen = Screen(head)
    for _ in range(100):
        hidden = (torch.randn(96) * 3).to(dtype)
        assert screen.largest(hidden) in (None, head(hidden[None]).float().argmax().item())
    assert screen.n_asked == 100 and screen.n_undecided < 30 and screen.n_candidates < 100 * 100


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n_channels=st.sampled_from([1, 2, 7, 64, 130]),
       gap=st.sampled_from([0.0, 1e-7, 1e-5, 1e-3]))
def test_rows_that_int8_cannot_tell_apart_are_settled_exactly_or_not(seed, n_channels, gap):
    torch.manual_seed(seed)
    weight = torch.randn(1, n_channels) + gap * torch.randn(50, n_channels)
    hidden = torch.randn(n_channels)
    best = Screen(head_of(weight)).largest(hidden)
    exact = weight.double() @ hidden.double()
    assert best in (None, exact.argmax().item())
    if gap == 0:
        assert best is None, "rows that are equal have no largest"


@torch.inference_mode()
def test_one_huge_weight_that_spoils_a_row_for_int8_does_not_mislead():
    torch.manual_seed(0)
    weight = torch.randn(400, 64)
    weight[::8, 0] = 1000.0  # these rows keep hardly anything of their other channels
    hidden = torch.randn(64)
    hidden[0] = 1e-3
    assert Screen(head_of(weight)).largest(hidden) == (weight @ hidden).argmax().item()


@torch.inference_mode()
def test_one_huge_channel_of_the_hidden_state_does_not_mislead():
    torch.manual_seed(0)
    weight = torch.randn(400, 64)
    weight[:, 0] = 0.0
    for _ in range(20):
        hidden = torch.randn(64)
        hidden[0] = 1000.0  # all others round to nothing
        assert Screen(head_of(weight)).largest(hidden) in (None, (weight @ hidden).argmax().item())


@torch.inference_mode()
def test_a_row_is_found_though_int8_loses_its_whole_logit():
    torch.manual_seed(0)
    hidden, weight = torch.randint(-127, 127, (64,)).float(), torch.zeros(4, 64)
    hidden[:2] = torch.tensor([0.0, 127.0])
    weight[1, 1], weight[2] = 1 / 127, 0.02 * hidden
    weight[2, 0] = 1000.0
    assert Screen(head_of(weight)).largest(hidden) == 2


@torch.inference_mode()
def test_a_row_is_found_though_it_reads_only_what_the_int8_hidden_state_loses():
    torch.manual_seed(0)
    hidden = torch.randn(64)
    hidden[0] = 1000.0
    weight = torch.zeros(3, 64)
    weight[1, 0], weight[2, 1:] = 1e-4, hidden[1:].sign()
    assert Screen(head_of(weight)).largest(hidden) == 2


@torch.inference_mode()
def test_a_row_that_int8_holds_exactly_does_not_widen_the_search():
    torch.manual_seed(0)
    weight = torch.randn(4000, 64)
    weight[7] = 0.0
    weight[7, 3] = 1.0
    screen = Screen(head_of(weight))
    for _ in range(50):
        assert screen.largest(hidden := torch.randn(64)) == (weight @ hidden).argmax().item()
    assert screen.n_candidates < 50 * 40


# The last two would make numbers outside fp32's range.
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 3e36, 1e-38])
def test_what_has_no_largest_logit_is_left_undecided(value):
    screen = Screen(head_of(torch.randn(40, 8)))
    assert screen.largest(torch.full((8,), value)) is None and screen.n_undecided == 1


def test_a_head_that_holds_a_nan_is_left_undecided():
    weight = torch.randn(40, 8)
    weight[3, 3] = float("nan")
    assert Screen(head_of(weight)).largest(torch.randn(8)) is None


def test_the_order_of_a_sum_decides_nothing():
    """Logits that differ by less than a sum in fp32 can be off: the head could give either."""
    weight = torch.tensor([[1e6, -1e6, 1.0], [1e6, -1e6, 1.0 + 2**-20]])
    assert Screen(head_of(weight)).largest(torch.ones(3)) is None


def test_bf16_logits_that_round_to_the_same_number_are_left_undecided():
    weight = torch.tensor([[256.0, 1.0], [256.0, 0.5], [-1.0, 0.0]], dtype=torch.bfloat16)
    assert Screen(head_of(weight.float())).largest(torch.ones(2)) == 0
    # 257 rounds to 256, and 256.5 too.
    assert Screen(head_of(weight)).largest(torch.ones(2, dtype=torch.bfloat16)) is None
    # 384, and 383, which rounds to 384; in int8 they differ.
    close = torch.tensor([[127.0, 127.0, 127.0, 3.0], [127.0, 127.0, 127.0, 2.0]]).bfloat16()
    assert Screen(head_of(close)).largest(torch.ones(4, dtype=torch.bfloat16)) is None


def test_a_processor_that_loses_sums_gets_smaller_numbers(monkeypatch):
    monkeypatch.setattr(module, "_is_exact", lambda peak: peak == 63)
    weight = torch.randn(300, 32)
    screen = Screen(head_of(weight))
    kept = screen._multiply(torch.eye(32, dtype=torch.int8)[0]) / screen._scale_V
    assert kept.abs().max().round() == 63
    hidden = torch.randn(32)
    assert screen.largest(hidden) == (weight @ hidden).argmax().item()


def test_a_head_that_is_not_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="on a CPU with oneDNN; got a head on meta"):
        Screen(nn.Linear(4, 4, bias=False, device="meta"))
