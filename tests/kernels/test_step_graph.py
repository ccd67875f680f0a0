"""Decoding by recorded steps, against the plain model's. The graph is a stand-in that records every
operation of PyTorch with its tensors, and repeats them on the same memory, as a CUDA graph does."""

import contextlib
import copy
import dataclasses
import gc
import pickle

import pytest
import torch
from llama4_twin import loud_llama4, toy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llama_from_scratch import family
from llama_from_scratch.generate.generate import decode, generate, stream
from llama_from_scratch.generate.prefix import PrefixCache
from llama_from_scratch.generate.sampling import GREEDY, Sampling
from llama_from_scratch.kernels import step_graph
from llama_from_scratch.kernels.fuse import fuse, unfuse
from llama_from_scratch.kernels.step_graph import StepGraphs
from llama_from_scratch.model.chunk_cache import forgetful_cache
from llama_from_scratch.model.transformer import Llama

WAITS = {"aten::_local_scalar_dense", "aten::nonzero"}   # for a number from the device


class Recorder(TorchDispatchMode):
    """Runs each operation, and keeps what it must undo: a graph is recorded without running."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.name().split(".")[0] not in WAITS, f"{func} waits for the device"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                self.before.setdefault(value.data_ptr(), (value, value.clone()))
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class FakeGraph:
    n_replays = 0

    def replay(self):
        FakeGraph.n_replays += 1
        for func, args, kwargs, recorded in self.calls:
            out = func(*args, **kwargs)
            for old, new in zip(tree_leaves(recorded), tree_leaves(out), strict=True):
                if isinstance(new, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextlib.contextmanager
def fake_recording(graph, **_):
    with Recorder() as recorder:
        yield
    for value, before in recorder.before.values():
        value.copy_(before)
    graph.calls = recorder.calls


@pytest.fixture
def recorded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", fake_recording)
    monkeypatch.setattr(step_graph, "records_on", lambda device: True)
    monkeypatch.setattr(FakeGraph, "n_replays", 0)


def pair():
    torch.manual_seed(0)
    plain = Llama(dataclasses.replace(family.tiny("llama-3.1"), max_seq_len=48))
    fused = copy.deepcopy(plain)
    fuse(fused, emulate=True)
    return plain, fused


@pytest.mark.parametrize("prompts, max_tokens, sampling", [
    ([[1, 2, 3]], 6, GREEDY),                                   # one text
    ([[1, 2, 3], [4, 5, 6]], 5, Sampling(repetition_penalty=1.3)),   # a batch without padding
    ([[1, 2, 3], [4], [5, 6, 7, 8, 9]], [3, 9, 5], GREEDY),     # ragged lengths; the batch shrinks
    ([[7]], 5, GREEDY),                                         # the prompt is a step already
])
def test_recorded_steps_write_the_ids_of_the_plain_model(prompts, max_tokens, sampling, recorded):
    plain, fused = pair()
    expected = generate(plain, prompts, max_tokens=max_tokens, sampling=sampling, seed=3)
    found = generate(fused, prompts, max_tokens=max_tokens, sampling=sampling, seed=3)
    assert found == expected and len(found[-1]) > 3
    assert FakeGraph.n_replays > 2


def test_logits_of_a_step_are_not_overwritten_by_the_next(recorded):
    plain, fused = pair()
    args = dict(max_tokens=6, sampling=GREEDY, seed=0, stop_ids=set())
    for a, b in zip(list(decode(plain, [[1, 2]], **args)), list(decode(fused, [[1, 2]], **args)),
                    strict=True):
        torch.testing.assert_close(b.logits, a.logits, rtol=1e-4, atol=1e-4)


def test_without_a_recording_the_same_steps_run_on_the_cpu():
    plain, fused = pair()
    prompts = [[1, 2, 3], [4]]
    assert generate(fused, prompts, max_tokens=5) == generate(plain, prompts, max_tokens=5)


def test_a_kept_prefix_goes_on_with_its_graph_after_tokens_were_removed(recorded):
    plain, fused = pair()
    prefixes = [PrefixCache(model) for model in (plain, fused)]
    for prompt in ([1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9], [1, 2, 9] + [6] * 20):
        texts = [list(stream(model, prompt, max_tokens=6, prefix=prefix))
                 for model, prefix in zip((plain, fused), prefixes, strict=True)]
        assert texts[0] == texts[1], prompt
    assert FakeGraph.n_replays > 8


def test_an_unfinished_text_and_another_one_do_not_disturb_each_other(recorded):
    plain, fused = pair()
    expected = [list(stream(plain, prompt, max_tokens=6)) for prompt in ([1, 2], [3])]
    first, second = (stream(fused, prompt, max_tokens=6) for prompt in ([1, 2], [3]))
    found = [list(pair) for pair in zip(*zip(first, second, strict=True), strict=True)]
    assert found == expected


def test_replaced_weights_and_parts_are_noticed(recorded):
    plain, fused = pair()
    steps = {model: stream(model, [1, 2], max_tokens=8) for model in (plain, fused)}
    assert [next(steps[plain]) for _ in range(3)] == [next(steps[fused]) for _ in range(3)]
    for model in (plain, fused):   # another tensor in the same place: what the graph reads is old
        torch.manual_seed(5)
        model.output.weight = torch.nn.Parameter(torch.randn_like(model.output.weight))
    assert list(steps[plain]) == list(steps[fused])


def test_graphs_are_forgotten_when_the_model_moves_or_their_cache_is_gone(recorded):
    _, fused = pair()
    graphs = fused.next_logits.graphs
    steps = stream(fused, [1, 2], max_tokens=8)
    next(steps), next(steps)
    assert len(graphs) == 1
    fused.to(torch.float32)
    assert len(graphs) == 0
    next(steps)
    assert len(graphs) == 1
    del steps
    gc.collect()
    assert len(graphs) == 0


def test_a_copy_of_a_model_records_its_own_steps(recorded):
    _, fused = pair()
    steps = stream(fused, [1, 2], max_tokens=8)
    next(steps), next(steps)
    copied = copy.deepcopy(fused)
    assert len(copied.next_logits.graphs) == 0 and len(fused.next_logits.graphs) == 1
    assert len(pickle.loads(pickle.dumps(StepGraphs()))) == 0
    assert list(stream(copied, [1, 2], max_tokens=5)) == list(stream(fused, [1, 2], max_tokens=5))


def test_steps_that_cannot_be_recorded_run_as_in_the_plain_model(recorded):
    """Several ids at once, a full cache, and a model that records gradients."""
    plain, fused = pair()
    room = plain.config.max_seq_len
    cache = fused.new_cache(batch_size=1, max_seq_len=3)
    with torch.inference_mode():
        for ids in ([[1, 2]], [[3]]):
            fused.next_logits(fused, torch.tensor(ids), positions=None, documents=None, cache=cache)
        with pytest.raises(ValueError, match="room for 3 tokens and holds 3; 1 more do not fit"):
            fused.next_logits(fused, torch.tensor([[4]]), positions=None, documents=None,
                              cache=cache)
    prompt = [i % 50 for i in range(room - 3)]
    assert generate(fused, [prompt], max_tokens=3) == generate(plain, [prompt], max_tokens=3)
    with pytest.raises(ValueError, match="keeps no graph"):
        fused.next_logits(fused, torch.tensor([[4]]), positions=None, documents=None,
                          cache=fused.new_cache(batch_size=1, max_seq_len=3))


def test_unfuse_ends_the_recording(recorded):
    plain, fused = pair()
    unfuse(fused)
    assert generate(fused, [[1, 2]], max_tokens=5) == generate(plain, [[1, 2]], max_tokens=5)
    assert FakeGraph.n_replays == 0 and type(fused.next_logits) is type(plain.next_logits)


@torch.inference_mode()
def test_a_step_that_a_graph_cannot_repeat_is_not_recorded():
    """Through experts, which ask how many tokens each has, or with a cache that moves tokens."""
    ids, dense = torch.tensor([[5]]), toy(step=9)
    for config, make, can in ((toy(), forgetful_cache, False), (dense, forgetful_cache, False),
                              (toy(), type(loud_llama4(dense)).new_cache, False),
                              (dense, type(loud_llama4(dense)).new_cache, True)):
        model = loud_llama4(config)
        cache = make(model, batch_size=1, max_seq_len=9)
        assert step_graph.can_record(model, ids, cache=cache) is can
