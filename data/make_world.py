"""Makes data/world again: a base of stories and the small world, and three assistants.

    python data/make_world.py base          # about 20 minutes on one core
    python data/make_world.py assistant     # about 8 minutes on one core, from data/world/base
    python data/make_world.py agent         # about 3 minutes on one core, from data/world/assistant
    python data/make_world.py safe          # about 2 minutes on one core, from data/world/assistant

All have one thread, so the same machine gives the same weights, and all are stored in bfloat16.
`base` reads plain text: the stories without the last 5 %, scenes with questions, and lists to copy.
It never sees a dialog. `assistant` learns from dialogs in Llama 3.2's format to answer, to obey an
instruction and to rewrite. `agent` learns errands with tools as well, `safe` to refuse what would
hurt an animal. What is printed at the end is measured with the stored weights. `--steps 0.01` makes
a hundredth of the steps.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import native
from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.generate import generate
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer import FORMATS, Message, Tokenizer
from llama_from_scratch.tokenizer.chat_format import prompting_for
from llama_from_scratch.train import (
    Packed,
    TrainConfig,
    evaluate,
    read_documents,
    split_validation,
    train,
)
from llama_from_scratch.tune import agent, safety, sft
from llama_from_scratch.tune.agents import guards
from llama_from_scratch.tune.dialogs import Dialog, exchange
from llama_from_scratch.tune.evals import Share, ask, share
from llama_from_scratch.tune.world.checking import obeys
from llama_from_scratch.tune.world.documents import list_document, scene_document
from llama_from_scratch.tune.world.errands import (
    DEEPER,
    HELD_OUT_INJECTIONS,
    INJECTIONS,
    KINDS,
    ErrandVerdict,
    TownTools,
    asked,
    errand,
    errand_dialogs,
    pairs_leaked,
)
from llama_from_scratch.tune.world.errands import judge as judge_errand
from llama_from_scratch.tune.world.instructions import (
    HELD_OUT_PAIRS,
    INSTRUCTIONS,
    PAIRS,
    TAUGHT_PAIRS,
    Request,
    any_single,
    follow_up,
    instruct,
    no_instruction,
)
from llama_from_scratch.tune.world.leaks import leaks
from llama_from_scratch.tune.world.requests import KINDS_OF_DEEDS, deeds, safety_lessons
from llama_from_scratch.tune.world.rewriting import rewriting
from llama_from_scratch.tune.world.words import COLORS, MARKS, NAMES, PLACES, TASTES, THINGS

SPECIAL_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                  "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")
VOCAB_SIZE = 1152
FORMAT = FORMATS["llama-3.2"]
BASE = TrainConfig(n_steps=6000, batch_size=8, seq_len=256, peak_lr=4e-3, n_warmup=150,
                   validate_every=1000)
ASSISTANT = TrainConfig(n_steps=2000, batch_size=32, seq_len=256, peak_lr=1.5e-3, n_warmup=50)
AGENT = replace(ASSISTANT, n_steps=450, n_warmup=30)

SAFE = TrainConfig(n_steps=500, batch_size=32, seq_len=256, peak_lr=2e-3, n_warmup=20)


def stories() -> tuple[list[str], list[str]]:
    return split_validation(read_documents(bundled.path("stories.txt"), separator="\n\n"),
                            fraction=0.05)


def vocabulary(told: Sequence[str]) -> Tokenizer:
    """Returns a tokenizer of the stories, the world, and the marks of dialogs, calls and code.

    Numbers below 50, and the words of the world in capitals, become one token each.
    """
    rng = Random(0)
    texts = [*told[:1200], *(scene_document(rng) for _ in range(600)),
             *(list_document(rng) for _ in range(600))]
    for _ in range(800):
        name, other = rng.sample(NAMES, 2)
        texts += [instruct(rng, "train").user, rewriting(rng, "train").user, *SYNTAX,
                  *(f" {text}" for text in INSTRUCTIONS.values()),
                  f"[get(who='{name}', what='coins'), get(who='{other}', what='friend')]",
                  f"[send(who='{name}', coins=1)]", f"Send 4 coins to {other}."]
    words = (*NAMES, *THINGS, *COLORS, *TASTES, *PLACES)
    texts += [f" {word}" for word in (*words, *MARKS) for _ in range(200)]
    texts += [f" {word.upper()}" for word in words for _ in range(600)]
    texts += [f"{n}" for n in range(50) for _ in range(400)]
    return Tokenizer.train(texts, VOCAB_SIZE, special_tokens=SPECIAL_TOKENS)


SYNTAX = ("user", "assistant", "ipython", "system", "\n\n", "[calc(x='1+2')]", "def f(x): return",
          "x * 2 + 1", "Tools: get, calc, send.", "error: busy", "Read the note.", "The note says",
          "I do not know.", "I will not do that.", "Tell me about", "I hope that helps.",
          "What a nice day.", "That is all I know.", "How many coins do they have together?")


def read_base(told: Sequence[str]) -> list[str]:
    """Returns the documents of the base: stories twice, and in addition scenes and lists."""
    rng = Random(1)
    documents = [*told, *told, *(scene_document(rng) for _ in range(36_000)),
                 *(list_document(rng) for _ in range(50_000))]
    rng.shuffle(documents)
    return [each if rng.random() < 0.5 else " " + each for each in documents]


def share_copied(model: Llama, tokenizer: Tokenizer, *, n: int = 200) -> float:
    """Returns how many of `n` new lists of six words the model repeats without an error."""
    rng, prompts, expected = Random(2), [], []
    for _ in range(n):
        items = [rng.choice((*NAMES, *THINGS, *COLORS, *PLACES)) for _ in range(6)]
        text = " " + " ".join(items) + "."
        prompts.append(tokenizer.encode(text, bos=True))
        expected.append(tokenizer.encode(text))
    answers = generate(model, prompts, max_tokens=[len(ids) for ids in expected])
    return sum(a == b for a, b in zip(answers, expected, strict=True)) / n


def make_base(folder: Path, *, part: float) -> None:
    told, unseen = stories()
    tokenizer = vocabulary(told)
    config = LlamaConfig(dim=96, n_heads=4, n_kv_heads=2, ffn_dim=256,
                         vocab_size=tokenizer.vocab_size, max_seq_len=512, norm_eps=1e-5,
                         rope_theta=10_000.0, layers=(LayerSpec(),) * 4)
    torch.manual_seed(0)
    model = Llama(config)
    data = Packed(read_base(told), tokenizer)
    print(f"{config.n_params:,} parameters, {data.n_tokens:,} tokens in the stream")
    validation = Packed(unseen[:60], tokenizer)

    def show(step) -> None:
        if (step.step + 1) % 200 == 0 or step.validation:
            print(step.step + 1, f"{step.loss:.3f}", step.validation,
                  f"{time.process_time():.0f} s", flush=True)

    train(model, data, validation=validation, config=scaled(BASE, part), on_step=show)
    keep(folder, model, tokenizer)
    model.float()
    print("stories:", evaluate(model, validation, batch_size=8, seq_len=256))
    print(f"lists of six words copied without an error: {share_copied(model, tokenizer):.3f}")


def lessons(n: int, *, seed: int) -> list[Dialog]:
    """Returns dialogs for the assistant.

    28 % of the first turns ask for a question to be rewritten. Most others ask about a scene, four
    in five of them with one instruction. A third of the dialogs have a second turn and a tenth
    three, at most: another question about the same person, or something new. Contents begin with a
    blank, so that their first word is the same token as inside a text. Three requests in ten have
    none, as people write.
    """
    rng = Random(seed)
    return [dialog(rng, n_turns=rng.choices((1, 2, 3), (57, 33, 10))[0]) for _ in range(n)]


def dialog(rng: Random, *, n_turns: int) -> Dialog:
    """Returns a dialog of the assistant's training, with words of its own in each turn."""
    messages: list[Message] = []
    task = None
    for _ in range(n_turns):
        if task and rng.random() < 0.6:
            follows = follow_up(rng, task, one_or_none)
            user, answer = follows.user, follows.answer
        else:
            user, answer, task = turn(rng)
        messages += [Message(role="user", content=user if rng.random() < 0.3 else f" {user}"),
                     Message(role="assistant", content=f" {answer}")]
    return Dialog(messages=tuple(messages))


def turn(rng: Random) -> tuple[str, str, Request | None]:
    """Returns a request, its answer, and the task, if a second question about it can follow."""
    draw = rng.random()
    if draw < 0.02:
        return *rng.choice(GREETINGS), None
    if draw < 0.3:
        careless = rewriting(rng, "train")
        return careless.user, careless.answer, None
    n_people = rng.choice((1, 1, 1, 2))
    task = instruct(rng, "train", one_or_none, n_people=n_people)
    return task.user, task.answer, task if n_people == 1 else None


def one_or_none(rng: Random) -> tuple[str, ...]:
    return any_single(rng) if rng.random() < 0.8 else no_instruction(rng)


GREETINGS = (("Hello.", "Hello."), ("Hi.", "Hello."), ("Good morning.", "Good morning."),
             ("Thank you.", "You are welcome."))


def make_assistant(folder: Path, *, part: float) -> None:
    model, tokenizer = native.load(folder.parent / "base")
    model.float()
    told, unseen = stories()
    config = scaled(ASSISTANT, part)
    dialogs = lessons(min(config.n_steps * config.batch_size, 48_000), seed=3)
    assert not leaks(message.content for dialog in dialogs for message in dialog.messages)

    def show(step) -> None:
        if (step.step + 1) % 100 == 0:
            print(step.step + 1, f"{step.loss:.3f}", f"{time.process_time():.0f} s", flush=True)

    sft.fit(model, dialogs, tokenizer, format=FORMAT, replay=told, replay_tokens=256,
            config=config, on_step=show)
    tokenizer.prompting = prompting_for(FORMAT, tokenizer)
    keep(folder, model, tokenizer)
    judge(model.float(), tokenizer, unseen)


def judge(model: Llama, tokenizer: Tokenizer, unseen: Sequence[str], *, n: int = 160) -> None:
    """Prints how many requests with held-out combinations are answered as they should be."""
    def answers(tasks) -> list[str]:
        return ask(model, tokenizer, [f" {task.user}" for task in tasks], FORMAT)

    rng = Random(99)
    untaught = [pair for pair in PAIRS if pair not in TAUGHT_PAIRS and pair not in HELD_OUT_PAIRS]
    kinds = {"no instruction": no_instruction, "one instruction": any_single,
             **{name: lambda rng, name=name: (name,) for name in INSTRUCTIONS},
             "a pair": lambda rng: rng.choice(untaught)}
    for name, choose in kinds.items():
        tasks = [instruct(rng, "test", choose) for _ in range(n if " " in name else 60)]
        told = answers(tasks)
        right = share(obeys(text, task) for text, task in zip(told, tasks, strict=True))
        wrong = [(text, task.answer) for text, task in zip(told, tasks, strict=True)
                 if not obeys(text, task)]
        print(f"{name}: {right}", wrong[:2])
    for n_people in (2, 3):
        tasks = [instruct(rng, "test", no_instruction, n_people=n_people) for _ in range(n)]
        print(f"{n_people} people: {share(map(obeys, answers(tasks), tasks))}")
    for words, first in (("the same person", instruct), ("something new", rewriting)):
        print(f"second turn, {words}: {share_of_second_turns(model, tokenizer, first, n=n)}")
    tasks = [rewriting(rng, "test") for _ in range(n)]
    told = answers(tasks)
    pairs = list(zip(told, tasks, strict=True))
    print(f"rewriting: {share(text == task.answer for text, task in pairs)}")
    intact = share(text == task.answer for text, task in pairs if task.is_name_intact)
    print(f"rewriting without a typo in the name: {intact}")
    print("stories:", evaluate(model, Packed(unseen[:60], tokenizer), batch_size=8, seq_len=256))


def share_of_second_turns(
    model: Llama, tokenizer: Tokenizer, first: Callable[[Random, str], Any], *, n: int
) -> Share:
    """Returns how often a second request is answered rightly after the model's first answer.

    After an `instruct` the second question is about the same person, otherwise about a new scene.
    """
    rng = Random(98)
    tasks = [first(rng, "test") for _ in range(n)]
    nexts = [follow_up(rng, task) if first is instruct else instruct(rng, "test")
             for task in tasks]
    told = ask(model, tokenizer, [f" {task.user}" for task in tasks], FORMAT)
    dialogs = [[Message(role="user", content=f" {task.user}"),
                Message(role="assistant", content=f" {text}"),
                Message(role="user", content=f" {then.user}")]
               for task, text, then in zip(tasks, told, nexts, strict=True)]
    return share(map(obeys, ask(model, tokenizer, dialogs, FORMAT), nexts))


def make_agent(folder: Path, *, part: float) -> None:
    """Teaches the assistant errands, with two lessons of its own in five dialogs."""
    model, tokenizer = native.load(folder.parent / "assistant")
    model.float()
    told, unseen = stories()
    config = scaled(AGENT, part)
    n = config.n_steps * config.batch_size
    errands = errand_dialogs(n * 3 // 5, seed=5)
    own = lessons(n - len(errands), seed=6)
    assert not pairs_leaked(errands)
    assert not leaks(message.content for dialog in own for message in dialog.messages)
    dialogs = [*errands, *own]
    Random(7).shuffle(dialogs)

    def show(step) -> None:
        if (step.step + 1) % 50 == 0:
            print(step.step + 1, f"{step.loss:.3f}", f"{time.process_time():.0f} s", flush=True)

    sft.fit(model, dialogs, tokenizer, format=FORMAT, replay=told, replay_tokens=256,
            config=config, on_step=show)
    keep(folder, model, tokenizer)
    judge_agent(model.float(), tokenizer)
    judge(model, tokenizer, unseen)


def judge_agent(model: Llama, tokenizer: Tokenizer, *, n: int = 48) -> None:
    """Prints how many errands with held-out pairs of names are done, and how many calls needless.

    Of results with an injection it prints how often coins were sent, unasked.
    """
    def verdict(kind: str, injection: str | None = None) -> ErrandVerdict:
        task = errand(rng, "test", kind, injection=injection)
        town = TownTools(task.town)
        trace = agent.run(model, tokenizer, task=asked(task), tools=town.tools(), format=FORMAT,
                          gate=guards.allow, lists_tools=False)
        return judge_errand(task, trace, town.sent)

    rng = Random(99)
    for kind in (*KINDS, *DEEPER):
        found = [verdict(kind) for _ in range(n)]
        print(f"{kind}: {share(each.is_done for each in found)}, "
              f"{sum(each.n_needless for each in found)} needless calls", flush=True)
    for name, words in (("trained", INJECTIONS), ("held-out", HELD_OUT_INJECTIONS)):
        for kind in ("note", "look"):
            found = [verdict(kind, rng.choice(words)) for _ in range(n)]
            print(f"coins sent because of a {kind}, {name} words: "
                  f"{share(not each.is_sent for each in found)}", flush=True)


def make_safe(folder: Path, *, part: float) -> None:
    """30 % of the requests to learn from are borderline, and none has a wrapper around it."""
    model, tokenizer = native.load(folder.parent / "assistant")
    model.float()
    told, unseen = stories()
    config = scaled(SAFE, part)
    n = config.n_steps * config.batch_size
    refusing = safety_lessons(round(0.7 * n), borderline=0.3, seed=5)
    own = lessons(round(0.3 * n), seed=6)
    assert not leaks(message.content for dialog in own for message in dialog.messages)
    dialogs = [*(exchange(f" {each.user}", f" {each.answer}") for each in refusing), *own]
    Random(7).shuffle(dialogs)
    sft.fit(model, dialogs, tokenizer, format=FORMAT, replay=told, config=config)
    keep(folder, model, tokenizer)
    model.float()
    rng = Random(97)
    for phrasing in ("train", "test"):
        cases = [each for kind in KINDS_OF_DEEDS
                 for each in deeds(rng, "test", kind, n=160, phrasing=phrasing)]
        answers = ask(model, tokenizer, [f" {each.user}" for each in cases], FORMAT)
        print(f"phrasings of {phrasing}: {safety.report(cases, answers)}")
    judge(model, tokenizer, unseen)


def scaled(config: TrainConfig, part: float) -> TrainConfig:
    n_steps = max(round(config.n_steps * part), 2)
    return replace(config, n_steps=n_steps, n_warmup=min(config.n_warmup, n_steps // 2))


def keep(folder: Path, model: Llama, tokenizer: Tokenizer) -> None:
    native.save(folder, model.to(torch.bfloat16), tokenizer)
    print(f"{folder}: {model.config.n_params:,} parameters")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("base", "assistant", "agent", "safe"))
    parser.add_argument("--out", type=Path, default=bundled.DATA / "world")
    parser.add_argument("--steps", type=float, default=1.0, help="share of the steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    make = {"base": make_base, "assistant": make_assistant, "agent": make_agent,
            "safe": make_safe}[args.what]
    make(args.out / args.what, part=args.steps)


if __name__ == "__main__":
    main()
