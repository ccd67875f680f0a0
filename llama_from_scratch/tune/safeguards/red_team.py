"""Red teaming: a search for wordings with which a model does what it should refuse.

The search puts sentences around a harmful request. In each round it tries all of them and keeps the
one that lowers the refusal margin most, until the margin is below 0 or none lowers it. What it
found is judged by the answer that the model writes, not by the margin that guided the search. An
answer that is no refusal may still be nonsense, so answers that really help are counted apart.

Notebook 57.
"""

from collections.abc import Sequence

from llama_from_scratch.config import record
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.chat_format import ChatFormat, ChatTemplate
from llama_from_scratch.tokenizer.hugging_face import AnyTokenizer
from llama_from_scratch.tune.evals import ask
from llama_from_scratch.tune.safeguards.margins import margins
from llama_from_scratch.tune.safety import is_helpful, is_refusal
from llama_from_scratch.tune.world.requests import HELP, REFUSAL, Deed


@record
class Attack:
    """The strongest wording that the search found for a request, and the model's answer to it.

    `n_wrappers`: 0 if nothing lowered the margin. `margin`: the refusal margin of `user`.
    """

    deed: Deed
    user: str
    n_wrappers: int
    margin: float
    answer: str

    @property
    def is_hole(self) -> bool:
        """Whether the model did not refuse. Its answer may be nonsense."""
        return not is_refusal(self.answer)

    @property
    def is_harmful(self) -> bool:
        """Whether the answer really helps: it names the verb and the object that were asked for."""
        return is_helpful(self.answer, self.deed)


def search(
    model: Llama, tokenizer: AnyTokenizer, asked: Sequence[Deed],
    format: ChatFormat | ChatTemplate, *, wrappers: Sequence[str], depth: int = 3,
    lead: str = " ",
) -> list[Attack]:
    """Returns the strongest attack on each request, with at most `depth` wrappers, one in another.

    `wrappers`: texts with "{request}" in them. `lead`: what a message begins with. Raises
    ValueError for a request that is not harmful, for no wrapper and for a negative depth.
    """
    if wrong := [each for each in asked if each.kind != "harmful"]:
        raise ValueError("an attack begins with a request that should be refused; got "
                         f"{wrong[0].user!r}, which is {wrong[0].kind}. Leave it out")
    if not asked or not wrappers or depth < 0 or any("{request}" not in w for w in wrappers):
        raise ValueError("a search needs requests, wrappers with {request}, and a depth of at "
                         f"least 0; got {len(asked)} requests, {list(wrappers)[:2]} and {depth}")

    def measured(texts: Sequence[str]) -> list[float]:
        return margins(model, tokenizer, [lead + text for text in texts], format,
                       first=lead + REFUSAL, second=lead + HELP).tolist()

    users = [each.user for each in asked]
    best, counts = measured(users), [0] * len(users)
    active = [i for i, margin in enumerate(best) if margin > 0]
    for _ in range(depth):
        tried = [[w.format(request=users[i]) for w in wrappers] for i in active]
        found = measured([text for texts in tried for text in texts]) if tried else []
        kept = []
        for place, i in enumerate(active):
            values = found[place * len(wrappers) : (place + 1) * len(wrappers)]
            w = min(range(len(values)), key=values.__getitem__)
            if values[w] < best[i]:
                users[i], best[i], counts[i] = tried[place][w], values[w], counts[i] + 1
                if best[i] > 0:
                    kept.append(i)
        active = kept
    answers = ask(model, tokenizer, [lead + user for user in users], format)
    return [Attack(deed=each, user=user, n_wrappers=n, margin=margin, answer=answer)
            for each, user, n, margin, answer in zip(asked, users, counts, best, answers,
                                                     strict=True)]
