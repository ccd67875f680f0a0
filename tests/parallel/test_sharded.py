"""`sharded`: every stage gives what one process gives, sends what the formulas say, holds a part.

Faults that users of other projects met are named with their issues.
"""

import on_ranks
import pytest
import ranks_sharded
import torch
import toy_parallel as toy

from llama_from_scratch.parallel import sharded_cost
from llama_from_scratch.parallel.launch import Ranks
from llama_from_scratch.parallel.sharded import Sharded
from llama_from_scratch.parallel.world import alone

on_ranks.by_value("toy_parallel")
on_ranks.by_value("ranks_sharded")

NEAR = 1e-12  # float64: rounding of sums in another order is 1e-14
NORMS_NEAR = 1e-12 * 200  # the sums of absolute values are about 200
CASES = ranks_sharded.cases_of_the_toy()
WAYS = ranks_sharded.WAYS


@pytest.fixture(scope="module")
def four():
    with Ranks(4, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def two():
    with Ranks(2, timeout_s=on_ranks.TIMEOUT_S) as ranks:
        yield ranks


def assert_equal(runs, expected):
    far = toy.distance(runs[0], expected)
    assert max(far["loss"], far["grads"], far["weights"]) < NEAR, far
    assert far["norms"] < NORMS_NEAR, far
    assert toy.same_bits(runs)


@pytest.fixture(scope="module")
def one_process():
    found = {}
    for case in CASES.values():
        key = case["is_tied"], case["n_micro"], case["is_skipped"]
        if key not in found:
            model = toy.Toy(is_tied=case["is_tied"])
            found[key] = toy.observed(
                model, toy.OneProcess(model), n_micro=case["n_micro"],
                make_batch=ranks_sharded.skipping if case["is_skipped"] else toy.batch)
    return found


@pytest.fixture(scope="module")
def toys(four):
    return four.run(ranks_sharded.many, CASES)


@pytest.mark.parametrize("name", CASES)
def test_four_ranks_give_what_one_process_gives(toys, one_process, name):
    case = CASES[name]
    expected = one_process[case["is_tied"], case["n_micro"], case["is_skipped"]]
    assert_equal([found[name] for found in toys], expected)


def test_two_ranks_give_what_one_process_gives(two, one_process):
    cases = {way: dict(way=way, is_tied=i % 2 == 1, n_micro=1 + 2 * (i % 2), is_skipped=i % 2 == 1)
             for i, way in enumerate(WAYS)}
    found = two.run(ranks_sharded.many, cases)
    for way, case in cases.items():
        expected = one_process[case["is_tied"], case["n_micro"], case["is_skipped"]]
        assert_equal([rank[way] for rank in found], expected)


HYBRID = {f"{way}, {n_micro}": dict(way=way, n_micro=n_micro, is_hybrid=True)
          for way in ("stage 1", "stage 2", "stage 3", "stage 3, kept") for n_micro in (1, 3)}


def test_two_groups_of_two_ranks_give_what_one_process_gives(four, one_process):
    found = four.run(ranks_sharded.many, HYBRID)
    for name, case in HYBRID.items():
        assert_equal([rank[name] for rank in found], one_process[False, case["n_micro"], False])


def test_a_tied_head_has_one_gradient_wherever_its_pieces_are(toys):
    """A fault of Megatron-LM#6500."""
    gathered = [found["stage 3, tied, 3"][-1] for found in toys]
    assert all("head.weight" not in seen.weights for seen in gathered)
    assert all(seen.weights["embedding.weight"].shape == (toy.V, toy.D) for seen in gathered)


@pytest.mark.parametrize("mutant", ranks_sharded.MUTANTS)
def test_a_planted_mistake_is_seen(four, one_process, mutant):
    is_hybrid = mutant == "not replicated"
    way = "stage 2" if mutant == "stale weights" else "stage 3"
    runs = four.run(ranks_sharded.toy_in, way=way, n_micro=3, is_hybrid=is_hybrid, mutant=mutant)
    with pytest.raises(AssertionError):
        assert_equal(runs, one_process[False, 3, False])


# --- the course's models --------------------------------------------------------------------------

MODELS = [("untied", "stage 3"), ("tied", "stage 3, kept"), ("tied", "stage 2"),
          ("seeing", "stage 3"), ("seeing", "stage 2, once")]


@pytest.fixture(scope="module")
def llamas(four):
    return four.run(ranks_sharded.models, MODELS)


@pytest.mark.parametrize("case", MODELS, ids=", ".join)
def test_a_llama_gives_what_one_process_gives(llamas, case):
    make, loss, make_batch = ranks_sharded.MODELS[case[0]]
    with toy.InFloat64():
        model = make()
        with torch.no_grad():
            evaluated = float(loss(model, make_batch(0, n_micro=1)[0]))
        expected = toy.observed(model, toy.OneProcess(model), n_micro=2, loss=loss, n_steps=3,
                                make_batch=make_batch, lr=0.05)
    assert_equal([found[case][0] for found in llamas], expected)
    assert all(found[case][1] == pytest.approx(evaluated, rel=1e-13) for found in llamas)


def test_after_evaluation_nothing_is_left_gathered(llamas):
    assert all(found["untied", "stage 3"][2] == 0 for found in llamas)


def test_a_sharded_model_writes_what_the_plain_one_writes(two):
    for stage_1, stage_3, plain in two.run(ranks_sharded.written):
        assert stage_1 == stage_3 == plain


# --- precision ------------------------------------------------------------------------------------


def number_of(found, *, index=0):
    """The gradients of one block on rank 0: all elements are the same number."""
    (_, a), (_, b) = found[0][f"layers.{index}.a"], found[0][f"layers.{index}.b"]
    assert all(rank == found[0] for rank in found)
    (number,) = set(a) | set(b)
    return number


@pytest.mark.parametrize("mutant", ranks_sharded.ROUNDED)
def test_both_reductions_are_in_fp32(four, mutant):
    """A fault of pytorch#190626."""
    # bfloat16 has 8 bits: 256 + 1 is 256 there, in whichever reduction they meet.
    within, across = [[256.0], [1.0], [0.0], [0.0]], [[256.0], [0.0], [1.0], [0.0]]
    found = four.run(ranks_sharded.several_gradients, [
        dict(numbers=numbers, mutant=mutant) for numbers in (within, across)])
    sums = [number_of([rank[i] for rank in found]) for i in range(2)]
    assert (sums == [257.0, 257.0]) == (mutant is None)


def test_the_reduction_along_tp_is_in_fp32_too(four):
    """A fault of pytorch#190626."""
    found = four.run(ranks_sharded.with_tensor_parallel)
    assert sum(n for n, _ in found) > 0
    assert all(n_bytes == 4 * n for n, n_bytes in found)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_64_small_gradients_after_a_large_one_are_all_counted(four, stage):
    """A fault of pytorch#194628."""
    numbers = [[256.0] + [1.0] * 63] * 4
    found = four.run(ranks_sharded.gradients, numbers=numbers, stage=stage)
    assert number_of(found) == 4 * (256 + 63)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_parameter_first_used_in_the_last_micro_batch(four, stage):
    """A fault of pytorch#196996."""
    dtypes = (torch.float32, torch.bfloat16, torch.float32)
    found = four.run(ranks_sharded.gradients, numbers=[[1.0, 2.0]] * 4, stage=stage, dtypes=dtypes,
                     param_dtype=None, first_used=(0,), last_used=(0, 1))
    assert [number_of(found, index=i) for i in range(3)] == [12.0, 8.0, 0.0]
    assert found[0]["layers.1.a"][0] == torch.bfloat16


def test_the_model_computes_in_param_dtype_and_the_pieces_are_fp32():
    model = ranks_sharded.llama().float()
    strategy = Sharded(model, alone(), stage=3, param_dtype=torch.bfloat16)
    assert {p.dtype for p in strategy.params.values()} == {torch.float32}
    with torch.no_grad():
        model.output.register_forward_pre_hook(
            lambda _, args: seen.update(x=args[0].dtype, w=model.output.weight.dtype))
        seen = {}
        model(torch.arange(6).view(1, 6))
    assert seen == {"x": torch.bfloat16, "w": torch.bfloat16}


# --- bytes ----------------------------------------------------------------------------------------

BYTES = [dict(way=way, n_micro=n_micro) for way in WAYS for n_micro in (1, 4)] + [
    dict(way="stage 3", n_micro=2, is_hybrid=True), dict(way="stage 1", n_micro=2, is_hybrid=True),
    dict(way="stage 3", n_micro=1, param_dtype=None)]


def expected_bytes(*, way, n_micro, is_hybrid=False, param_dtype=torch.bfloat16):
    """The formulas: (d-1)/d of a tensor is sent when it is gathered or reduced and scattered."""
    options, d = WAYS[way], 2 if is_hybrid else 4
    sizes = ranks_sharded.unit_sizes(n_ranks=d)
    n, root = sum(sizes.values()), sizes["root"]
    weight_bytes = 4 if param_dtype is None else 2
    if options["stage"] < 3:
        n_gathered = n
    elif options.get("keeps_after_forward"):
        n_gathered = n_micro * n
    else:
        n_gathered = n_micro * (n + n - root)
    is_once = options["stage"] == 1 or options.get("reduces_once")
    n_reduced = n if is_once else n_micro * n
    group = "dp"
    found = {(group, "all_gather"): n_gathered * weight_bytes * (d - 1) // d,
             (group, "reduce_scatter"): n_reduced * 4 * (d - 1) // d}
    if is_hybrid:
        found["replicate", "all_reduce"] = 2 * (2 - 1) * (n // d) * 4 // 2
    return found


@pytest.fixture(scope="module")
def sent(four):
    return four.run(ranks_sharded.several_bytes, BYTES)


@pytest.mark.parametrize("i", range(len(BYTES)), ids=[str(case) for case in BYTES])
def test_bytes_equal_the_formulas(sent, i):
    expected = expected_bytes(**BYTES[i])
    assert all(found[i][0] == expected for found in sent)
    case = dict(BYTES[i])
    if not case.pop("is_hybrid", False):  # and the module with the formulas says the same
        options = {name: value for name, value in WAYS[case["way"]].items() if name != "prefetches"}
        sizes = sharded_cost.unit_sizes(ranks_sharded.llama_config())
        told = sharded_cost.sent(sizes, n_ranks=4, n_micro=case["n_micro"],
                                 is_bf16="param_dtype" not in case, **options)
        assert {("dp", op): n for op, n in told.items()} == expected


def test_accumulation_saves_bytes_only_where_it_reduces_once(sent):
    """A fault of cosmos-framework#161."""
    reduced = {(case["way"], case["n_micro"]): found[0]["dp", "reduce_scatter"]
               for case, found in zip(BYTES, sent[0], strict=True) if "is_hybrid" not in case
               and "param_dtype" not in case}
    assert reduced["stage 1", 4] == reduced["stage 1", 1]
    assert reduced["stage 3, once", 4] == reduced["stage 3, once", 1]
    assert reduced["stage 2", 4] == 4 * reduced["stage 2", 1]
    assert reduced["stage 3", 4] == 4 * reduced["stage 3", 1]


def test_the_next_unit_is_gathered_while_one_computes(four):
    assert four.run(ranks_sharded.prefetched, way="stage 3")[0] == [True] * 4
    assert four.run(ranks_sharded.prefetched, way="stage 3, not prefetched")[0] == [False] * 4


# --- memory ---------------------------------------------------------------------------------------

MEMORIES = [(way, dtype) for way in ("stage 1", "stage 2", "stage 3", "stage 3, once")
            for dtype in (None, torch.bfloat16)]


@pytest.fixture(scope="module")
def held(four, two):
    return {4: four.run(ranks_sharded.several_memories, MEMORIES),
            2: two.run(ranks_sharded.several_memories, MEMORIES)}


def expected_memory(way, param_dtype, *, d):
    """Bytes in the four states that `memory` names, and what the peak cannot exceed."""
    sizes = ranks_sharded.unit_sizes(n_ranks=d)
    n, n_owned, root = sum(sizes.values()), sum(sizes.values()) // d, sizes["root"]
    largest = max(size for unit, size in sizes.items() if unit != "root")
    stage, is_once = WAYS[way]["stage"], WAYS[way].get("reduces_once", False)
    width = 4 if param_dtype is None else 2
    kept = width * n if stage < 3 else 0
    own = 0 if stage < 3 and param_dtype is None else 4 * n_owned  # else a part of what is kept
    grads = 4 * n if stage == 1 else 4 * n_owned
    peak = kept + own + (0 if stage == 1 else 4 * n_owned)
    peak += 4 * n if stage == 1 or is_once else 4 * (root + 2 * largest)
    peak += 0 if stage < 3 else width * (root + 2 * largest)
    between = 4 * n if is_once else grads
    return (kept + own + between, kept + own + grads, kept + own + 4 * n_owned, kept + own), peak


@pytest.mark.parametrize("case", MEMORIES, ids=str)
@pytest.mark.parametrize("d", [2, 4])
def test_memory_equals_the_formulas(held, case, d):
    expected, largest_peak = expected_memory(*case, d=d)
    for *states, peak, _ in [rank[case] for rank in held[d]]:
        assert tuple(states) == expected
        assert peak <= largest_peak
    if case[0] != "stage 3, once":  # and the module with the formulas says the same
        told = sharded_cost.held(sharded_cost.unit_sizes(ranks_sharded.llama_config()), n_ranks=d,
                                 stage=WAYS[case[0]]["stage"], is_bf16=case[1] is not None)
        assert told.total - told.averages - told.gathered == expected[1]
        assert told.total - told.averages == largest_peak
    n = sum(p.numel() for p in ranks_sharded.llama().parameters())
    assert sum(rank[case][-1] for rank in held[d]) == n  # each average is on one rank


def test_reducing_once_costs_whole_gradients_on_every_rank(held):
    """A fault of verl#7458."""
    n = sum(p.numel() for p in ranks_sharded.llama().parameters())
    for d in (2, 4):
        between, *_, after_step, _, _ = held[d][0]["stage 3, once", None]
        assert between - after_step >= 4 * n  # however many ranks there are
        between, *_, after_step, _, _ = held[d][0]["stage 3", None]
        assert between - after_step < 4 * (n / d + 10)


def test_a_model_on_the_meta_device_is_made_without_ever_being_whole(four):
    sizes = ranks_sharded.unit_sizes(n_ranks=4)
    for largest, held, n_nan, far, is_nan in four.run(ranks_sharded.from_meta):
        assert largest == 4 * max(sizes.values())
        assert held == 4 * sum(sizes.values()) // 4
        assert n_nan > 0
        assert far < 1e-5  # fp32
        assert is_nan  # what is not there cannot be read by mistake


# --- pieces ---------------------------------------------------------------------------------------


def test_one_huge_and_thirty_tiny_tensors(four):
    """A fault of Megatron-LM(radixark)#66."""
    found = four.run(ranks_sharded.uneven)
    assert all(is_equal for is_equal, _ in found)
    spans = [spans for _, spans in found]
    for name in {name for each in spans for name in each}:
        covered = [i for each in spans if name in each
                   for i in range(each[name][0], sum(each[name]))]
        size = 3000 if name == "0" else 1 + (int(name) - 1) % 3
        assert covered == list(range(size))  # each element once: padding is in no piece


def test_the_names_are_those_of_the_model():
    model = ranks_sharded.seeing_model()
    names = {name: p.requires_grad for name, p in model.named_parameters()}
    strategy = Sharded(model, alone(), stage=3)
    assert {name: True for name in strategy.params} | {name: False for name in strategy.frozen} \
        == names


# --- refusals -------------------------------------------------------------------------------------


def strategy_of_one(**options):
    model = ranks_sharded.llama()
    return model, Sharded(model, alone(), **{"stage": 3, **options})


@pytest.mark.parametrize(("options", "told"), [
    (dict(stage=0), "stage must be 1, 2 or 3; got 0"),
    (dict(stage=2, keeps_after_forward=True), "keeps_after_forward has an effect from stage 3 on"),
    (dict(stage=1, reduces_once=True), "reduces_once has an effect from stage 2 on"),
    (dict(param_dtype=torch.int8), "param_dtype must be a floating-point dtype"),
])
def test_options_without_effect_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        strategy_of_one(**options)


def test_a_forward_pass_with_gradients_outside_of_a_micro_batch_is_refused():
    model, _ = strategy_of_one()
    with pytest.raises(RuntimeError, match=r"inside of micro_batch.*torch.no_grad"):
        model(torch.arange(6).view(1, 6))


def test_backward_after_the_micro_batch_is_refused():
    model, strategy = strategy_of_one()
    with strategy.micro_batch(is_last=True):
        loss = model(torch.arange(6).view(1, 6)).sum()
    with pytest.raises(RuntimeError, match="inside of the same micro_batch"):
        loss.backward()


def test_the_order_of_the_calls_is_checked():
    _, strategy = strategy_of_one()
    with pytest.raises(RuntimeError, match="finish.. comes after a micro_batch"):
        strategy.finish()
    with strategy.micro_batch(is_last=True):
        pass
    with pytest.raises(RuntimeError, match="call finish.. after the last micro-batch"), \
            strategy.micro_batch(is_last=True):
        pass


def test_fill_refuses_other_names_and_shapes():
    _, strategy = strategy_of_one()
    with pytest.raises(ValueError, match="got 'layers.0.attention.wq'.*did you mean"):
        strategy.fill("layers.0.attention.wq", torch.zeros(18, 18))
    with pytest.raises(ValueError, match=r"has the shape \(18,\); got a weight of \(17,\)"):
        strategy.fill("norm.weight", torch.zeros(17))


def test_fill_changes_what_the_model_computes():
    for stage in (1, 2, 3):
        model, strategy = strategy_of_one(stage=stage)
        before = ranks_sharded.run_without_gradients(model)
        strategy.fill("norm.weight", torch.full((18,), 2.0, dtype=torch.float64))
        assert torch.equal(ranks_sharded.run_without_gradients(model), 2 * before)


def test_the_units_of_these_tests_need_padding():
    assert all(n % 4 for n in ranks_sharded.unit_sizes(n_ranks=1).values())
