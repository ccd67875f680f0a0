import dataclasses

import pytest
import torch
from chat_dialogs import CITY, SMALL, WITH_CALLS, tokenizer_of

from llama_from_scratch import family
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import FORMATS, Message, Tool, ToolCall
from llama_from_scratch.train.data import IGNORE
from llama_from_scratch.train.loss import evaluate, sum_of_nats
from llama_from_scratch.tune import rows
from llama_from_scratch.tune.dialogs import Dialog, exchange

FORMAT, TOKENIZER = FORMATS["llama-3.2"], SMALL["llama-3.1"]
WORDS = ["system", "user", "assistant", "help", "Rome", "city", "weather", "today"]


def dialogs(n, *, seed=0):
    """Dialogs of one to three turns, with answers of different lengths."""
    draw = torch.Generator().manual_seed(seed)

    def text():
        picks = torch.randint(len(WORDS), (int(torch.randint(1, 9, (), generator=draw)),),
                              generator=draw)
        return " ".join(WORDS[i] for i in picks)

    made = []
    for _ in range(n):
        messages = []
        for _ in range(int(torch.randint(1, 4, (), generator=draw))):
            messages += [Message(role="user", content=text()),
                         Message(role="assistant", content=text())]
        made.append(Dialog(messages=tuple(messages)))
    return made


def examples(n=12, **kwargs):
    return rows.examples_of(dialogs(n, **kwargs), TOKENIZER, FORMAT, max_tokens=400)[0]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = dataclasses.replace(family.tiny("llama-3.2"), vocab_size=TOKENIZER.vocab_size)
    return Llama(config).double()


def learned_text(example, tokenizer):
    kept = [i for i, is_learned in zip(example.ids, example.is_learned, strict=True) if is_learned]
    names = {i: name for name, i in tokenizer.special_ids.items()}
    return "".join(names[i] if i in names else tokenizer.decode([i]) for i in kept)


@pytest.mark.parametrize("name, end", [
    ("llama-2", "</s>"), ("llama-3", "<|eot_id|>"), ("llama-3.1", "<|eot_id|>"),
    ("llama-3.2", "<|eot_id|>"), ("llama-3.3", "<|eot_id|>"), ("llama-4", "<|eot|>"),
])
@pytest.mark.parametrize("has_system", [False, True])
def test_learned_is_what_the_assistant_says_and_its_end(name, end, has_system):
    lead = (Message(role="system", content="Be kind."),) if has_system else ()
    dialog = Dialog(messages=(
        *lead, Message(role="user", content="Hi there"), Message(role="assistant", content="Rome"),
        Message(role="user", content="More"), Message(role="assistant", content="today")))
    tokenizer = tokenizer_of(name)
    example = rows.example_of(dialog, tokenizer, FORMATS[name])
    said = learned_text(example, tokenizer)
    assert said.replace(" ", "") == f"Rome{end}today{end}"
    assert example.ids == tuple(FORMATS[name].encode(dialog.messages, tokenizer, is_answered=True))


@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls_are_learned_with_their_end_and_results_are_not(name):
    call = ToolCall(name="weather", arguments={"city": "Rome"})
    dialog = Dialog(tools=(Tool(name="weather", description="The weather.", properties=CITY),),
                    messages=(
        Message(role="user", content="Hi"),
        Message(role="assistant", tool_calls=(call,), ends_turn=False),
        Message(role="ipython", content="today"), Message(role="assistant", content="help")))
    example = rows.example_of(dialog, tokenizer_of(name), FORMATS[name])
    said = learned_text(example, tokenizer_of(name))
    assert said.count("weather") == 1 and "today" not in said and "The" not in said
    assert said.count("<|eo") == 2 and said.endswith(("help<|eot_id|>", "help<|eot|>"))


def test_a_message_left_unlearned_is_only_read():
    told = (Message(role="user", content="Hi"), Message(role="assistant", content="Rome"),
            Message(role="user", content="city"), Message(role="assistant", content="help"))
    example = rows.example_of(Dialog(messages=told, unlearned=(1,)), TOKENIZER, FORMAT)
    assert learned_text(example, TOKENIZER) == "help<|eot_id|>"


def total(model, data, **sizes):
    """The sum of nats and the number of targets over one epoch."""
    nats, n = 0.0, 0
    n_batches = len(data._epoch(0, sizes["batch_size"], sizes["seq_len"], 0))
    for step in range(n_batches):
        batch = data.batch(step, seed=0, **sizes)
        nats, n = nats + rows.learned_nats(model, batch).item(), n + batch.n_targets
    return nats, n


def test_packed_rows_padded_rows_and_single_rows_have_the_same_loss(model):
    told = examples()
    alone = total(model, rows.Rows(told, TOKENIZER), batch_size=1, seq_len=400)
    together = total(model, rows.Rows(told, TOKENIZER), batch_size=4, seq_len=400)
    packed = rows.Rows(told, TOKENIZER, is_packed=True)
    assert len(packed._epoch(0, 1, 400, 0)) < len(told) / 2
    full = total(model, packed, batch_size=1, seq_len=400)
    assert alone[1] == together[1] == full[1] == sum(example.n_learned for example in told)
    assert abs(alone[0] - together[0]) < 1e-9 and abs(alone[0] - full[0]) < 1e-9


def test_micro_batches_have_the_loss_of_the_batch(model):
    batch = rows.Rows(examples(), TOKENIZER).batch(0, batch_size=8, seq_len=400, seed=1)
    parts = [rows.learned_nats(model, part).item() for part in batch.split(3)]
    assert abs(sum(parts) - rows.learned_nats(model, batch).item()) < 1e-9
    assert sum(part.n_targets for part in batch.split(3)) == batch.n_targets


def test_the_loss_is_that_of_training_on_the_same_targets(model):
    batch = rows.Rows(examples(), TOKENIZER).batch(0, batch_size=8, seq_len=400, seed=1)
    assert abs(rows.learned_nats(model, batch) - sum_of_nats(model, batch)) < 1e-4


def test_logits_of_what_is_not_learned_get_no_gradient(model):
    batch = rows.Rows(examples(), TOKENIZER).batch(0, batch_size=8, seq_len=400, seed=1)
    seen = {}

    def note(module, inputs):
        seen["n"] = len(inputs[0])

    with model.output.register_forward_pre_hook(note):
        rows.learned_nats(model, batch)
    assert seen["n"] == batch.n_targets
    logits = batch.logits(model).detach().requires_grad_()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(),
                                      ignore_index=IGNORE, reduction="sum").backward()
    assert not logits.grad[batch.targets == IGNORE].any()


def test_changing_one_packed_dialog_leaves_the_others(model):
    told = examples(4)
    changed = [*told[:3], dataclasses.replace(told[3], ids=(*told[3].ids[:-2], 7, 7))]
    for other in (told, changed):
        data = rows.Rows(other, TOKENIZER, is_packed=True)
        batch = data.batch(0, batch_size=1, seq_len=900, seed=0)
        logits = batch.logits(model)[0]
        order = data._epoch(0, 1, 900, 0)[0][0]
        document = order.index(0)
        if other is told:
            before = logits[batch.documents[0] == document]
        else:
            after = logits[batch.documents[0] == document]
    assert len(order) == 4 and torch.equal(before, after)


def test_positions_begin_again_in_each_dialog_of_a_row():
    told = examples(4)
    batch = rows.Rows(told, TOKENIZER, is_packed=True).batch(0, batch_size=1, seq_len=900, seed=0)
    for document in range(4):
        positions = batch.positions[0][batch.documents[0] == document].tolist()
        assert positions == list(range(len(positions)))


def test_an_epoch_has_every_example_once_in_an_order_of_its_own():
    data = rows.Rows(examples(12), TOKENIZER)
    seen = [[i for batch in data._epoch(epoch, 3, 400, 0) for row in batch for i in row]
            for epoch in range(2)]
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(12)) and seen[0] != seen[1]
    again = rows.Rows(examples(12), TOKENIZER)
    assert torch.equal(again.batch(6, batch_size=3, seq_len=400, seed=0).ids,
                       data.batch(6, batch_size=3, seq_len=400, seed=0).ids)


def test_fewer_examples_than_a_batch_are_one_batch():
    batch = rows.Rows(examples(3), TOKENIZER).batch(5, batch_size=8, seq_len=400, seed=0)
    assert len(batch.ids) == 3


def test_digests_tell_rows_apart():
    told = examples(4)
    same, packed = rows.Rows(told, TOKENIZER), rows.Rows(told, TOKENIZER, is_packed=True)
    less = [dataclasses.replace(told[0], is_learned=(False,) * len(told[0].ids)), *told[1:]]
    assert same.digest == rows.Rows(told, TOKENIZER).digest
    assert len({same.digest, packed.digest, rows.Rows(less, TOKENIZER).digest}) == 3


def test_long_dialogs_are_refused_or_cut_after_an_answer_and_counted():
    long = Dialog(messages=tuple(
        Message(role=role, content="Rome today") for _ in range(5) for role in
        ("user", "assistant")))
    with pytest.raises(ValueError, match="holds 60 tokens, and dialog 1 has"):
        rows.examples_of([exchange("a", "b"), long], TOKENIZER, FORMAT, max_tokens=60)
    cut, n_cut = rows.examples_of([exchange("a", "b"), long], TOKENIZER, FORMAT, max_tokens=60,
                                  is_cut=True)
    assert n_cut == 1 and len(cut[1].ids) <= 60
    assert learned_text(cut[1], TOKENIZER).endswith("<|eot_id|>")
    whole = rows.example_of(long, TOKENIZER, FORMAT)
    assert whole.ids[: len(cut[1].ids)] == cut[1].ids
    with pytest.raises(ValueError, match="Its first answer alone is too long"):
        rows.examples_of([long], TOKENIZER, FORMAT, max_tokens=9, is_cut=True)


def test_an_example_longer_than_a_row_is_refused():
    data = rows.Rows(examples(4), TOKENIZER)
    with pytest.raises(ValueError, match="a row of seq_len=8 holds 9 tokens"):
        data.batch(0, batch_size=2, seq_len=8, seed=0)


@pytest.mark.parametrize("dialog, said", [
    (Dialog(messages=(Message(role="user", content="Hi"),)), "got the roles user"),
    (exchange("Hi", "  "), "message 1 of the dialog is empty"),
])
def test_dialogs_without_an_answer_are_refused(dialog, said):
    with pytest.raises(ValueError, match=said):
        rows.example_of(dialog, TOKENIZER, FORMAT)


def test_no_dialogs_and_nothing_to_learn_are_refused():
    with pytest.raises(ValueError, match="learning needs dialogs; got none"):
        rows.examples_of([], TOKENIZER, FORMAT, max_tokens=9)
    silent = rows.TokenExample(ids=(1, 2), is_learned=(True, False))
    with pytest.raises(ValueError, match="got 1 examples without any"):
        rows.Rows([silent], TOKENIZER)


def test_replayed_texts_are_a_share_of_all_rows_and_learned_whole():
    told = examples(17)
    mixed = rows.with_replay(told, ["Rome today"], TOKENIZER, share=0.15, max_tokens=9)
    assert len(mixed) == 20 and mixed[:17] == told
    assert len(mixed[-1].ids) <= 9 and mixed[-1].n_learned == len(mixed[-1].ids) - 1
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            rows.with_replay(told, ["Rome"], TOKENIZER, share=share, max_tokens=9)


def test_validation_on_dialogs_counts_their_answers(model):
    told = examples(5)
    found = evaluate(model, rows.Rows(told, TOKENIZER), batch_size=2, seq_len=400,
                     loss=rows.learned_nats)
    texts = "".join(learned_text(example, TOKENIZER).replace("<|eot_id|>", "") for example in told)
    assert found.n_targets == sum(example.n_learned for example in told)
    assert found.n_bytes == len(texts.encode())
