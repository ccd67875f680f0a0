"""One story while it is told: who is in it, what was said, how a template becomes a sentence.

A template is plain English with two kinds of holes. `[a|b|c]` is one of the alternatives, chosen at
random; brackets nest. `{h}` is the character with the role h; `{h.he}` is a pronoun where that is
clear and the name where it is not; `{t.the}` is "the red ball". A template that begins with `~` is
sometimes left out. A story keeps who was mentioned last, so a pronoun always means the right
character.
"""

import re
from dataclasses import dataclass
from random import Random

from stories import words

PRONOUNS = {
    "f": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "m": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}


@dataclass(frozen=True, kw_only=True)
class Character:
    """Somebody: the story calls them `name` and introduces them as `look` ("shy little rabbit")."""

    name: str
    kind: str
    gender: str
    look: str = ""
    hand: str = "hand"


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that keeps its color: `{t}` ball, `{t.full}` red ball, `{t.a}`, `{t.the}`."""

    noun: str
    color: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Somewhere: `{p}` the garden, `{p.at}` in the garden."""

    name: str
    prep: str


def the(phrase: str) -> str:
    """"a blue fish" -> "the blue fish", which the reader knows by now."""
    return "the " + phrase.split(" ", 1)[1]


def tidy(text: str) -> str:
    """The text with single spaces, `an` before vowels and a capital letter in each sentence."""
    text = re.sub(r" +", " ", text).strip()
    text = re.sub(r" (?=[.,!?])", "", text)
    text = re.sub(r'"([.,])', r'\1"', text)
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU]|hour|honest)(?!one\b|use)", r"\1n ", text)
    return re.sub(r'(^|(?<!\.\.)[.!?] |(?:^| )")([a-z])', lambda m: m[1] + m[2].upper(), text)


SYNONYM = r"(?<!\w)(" + "|".join(words.SYNONYMS) + r")\b(?![^{]*})"  # not inside a hole


class Story:
    """Collects the paragraphs of a story; frames cast it, then call `tell`, `speak` and `para`."""

    def __init__(self, rng: Random):
        self.rng = rng
        self.roles: dict[str, Character | Thing | Place | str] = {}
        self.paragraphs: list[str] = [""]
        self.last: dict[str, str] = {}  # gender -> the role that a pronoun of this gender means now
        self.spent: dict[str, list[str]] = {}  # pool -> alternatives not used yet in this story
        self.speaker = ""  # who spoke last, if nothing was told since
        self.asker = ""  # who asked a question that waits for an answer
        self.actor = ""  # the role that opened the last sentence
        self.is_animal_world = rng.random() < 0.45
        self.sky = "sunny"
        self.hour = "day"

    # --- Choosing ---------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, options):
        """One of `options`, a sequence or a string "a|b|c"; brackets protect inner alternatives."""
        return self.rng.choice(split_top(options) if isinstance(options, str) else list(options))

    def sample(self, options, n: int) -> list:
        """`n` different ones of `options`, in random order."""
        pool = split_top(options) if isinstance(options, str) else list(options)
        self.rng.shuffle(pool)
        return pool[:n]

    def fresh(self, name: str, options: str) -> str:
        """One alternative of the pool `name`; none comes twice before all were used."""
        if not self.spent.get(name):
            self.spent[name] = self.sample(split_top(options), 99)
        return self.spent[name].pop()

    def let(self, **roles: str) -> None:
        """Decide now what a role means in this whole story: `let(why="[a|b] c|d")`."""
        for role, options in roles.items():
            self.roles[role] = self.choose(self.pick(options))

    # --- Templates --------------------------------------------------------------------------------

    def choose(self, template: str) -> str:
        """The template with every `[a|b]` decided, innermost first."""
        while match := re.search(r"\[([^\[\]]*)\]", template):
            chosen = self.pick(match[1].split("|"))
            template = template[: match.start()] + chosen + template[match.end() :]
        return template

    def fill(self, template: str) -> str:
        """The template with its holes filled from left to right, so that pronouns fit."""
        return re.sub(r"\{(\w+)(?:\.(\w+))?\}", lambda m: self.refer(m[1], m[2] or ""),
                      self.choose(template))

    def refer(self, role: str, form: str) -> str:
        """The words for a role in a form, such as `{h.his}`, or from a pool, such as `{glad}`."""
        if role not in self.roles:
            return self.fill(self.fresh(role, words.POOLS[role]))
        value = self.roles[role]
        if isinstance(value, Character):
            return self.refer_to_character(role, value, form)
        if isinstance(value, Thing):
            full = f"{value.color} {value.noun}".strip()
            return {"": value.noun, "full": full, "a": f"a {full}", "the": f"the {full}",
                    "color": value.color}[form]
        if isinstance(value, Place):
            return {"": value.name, "at": f"{value.prep} {value.name}"}[form]
        return self.fill(value)

    def refer_to_character(self, role: str, who: Character, form: str) -> str:
        if form in ("a", "kind", "look", "hand", "hands"):
            hands = "hooves" if who.hand == "hoof" else who.hand + "s"
            return {"a": f"a {who.look}", "kind": who.kind, "look": who.look, "hand": who.hand,
                    "hands": hands}[form]
        pronoun = PRONOUNS[who.gender].get(form.lower())
        is_clear = self.last.get(who.gender) == role
        self.last[who.gender] = role
        if pronoun and (is_clear or form.lower() == "himself"):
            return pronoun.capitalize() if form[0].isupper() else pronoun
        name = who.name
        if form == "full" and who.kind in words.ANIMALS:
            name = f"{name} the {who.kind}"
        if form.lower() in ("his", "s"):
            name += "'s"
        return name[0].upper() + name[1:] if form[:1].isupper() else name

    # --- Telling ----------------------------------------------------------------------------------

    def tell(self, *templates: str) -> None:
        """Add sentences to the paragraph."""
        for template in templates:
            if template.startswith("~") and self.chance(0.45):
                continue
            template = self.vary(template.removeprefix("~"))
            is_other = template and not template.startswith((f"{{{self.speaker}", '"'))
            if self.speaker and is_other and self.chance(0.7):
                self.para()
            self.actor = template[1:].partition("} ")[0] if template.startswith("{") else ""
            sentence = self.fill(self.shorten(template)).strip()
            self.paragraphs[-1] += " " + sentence[:1].upper() + sentence[1:]

    def vary(self, template: str) -> str:
        """The template with its alternatives decided and everyday words replaced by synonyms."""
        return re.sub(SYNONYM, lambda m: self.pick(words.SYNONYMS[m[0]]), self.choose(template))

    def shorten(self, template: str) -> str:
        """The template with, most of the time, a pronoun where it opens with the last actor."""
        is_one = isinstance(self.roles.get(self.actor), Character)
        is_about_one = is_one and "} and " not in template[:12]
        if is_about_one and self.paragraphs[-1] and self.chance(0.7):
            return template.replace("}", ".he}", 1)
        return template

    def one(self, *templates: str) -> None:
        """Tell one of several ways to say it."""
        self.tell(self.pick(templates))

    def maybe(self, p: float, *templates: str) -> None:
        """Tell one of them, or nothing."""
        if self.chance(p):
            self.one(*templates)

    def para(self) -> None:
        """Start a new paragraph; often the names are said again there."""
        if self.paragraphs[-1]:
            self.paragraphs.append("")
            self.speaker = ""
            if self.chance(0.6):
                self.last.clear()

    def speak(self, who: str, speech: str, mood: str = "plain") -> None:
        """Direct speech of the role `who`, in one of several word orders."""
        if speech.startswith("~") and self.chance(0.45):
            return
        speech = self.choose(speech.removeprefix("~"))
        split = re.sub(r"(?<!Mr)(?<!Mrs)([.!?]) ", r"\1\n", speech, count=1)
        first, _, rest = split.partition("\n")
        if self.actor == who and not self.speaker and self.chance(0.5):
            self.tell(f'"{speech}"')  # who acted just now needs no "said"
        else:
            if self.speaker != who and (self.speaker or self.chance(0.5)):
                self.para()
            self.speaker = ""
            if rest and self.chance(0.6):
                self.tell(f'{self.tag(who, first, mood, is_split=True)} "{rest}"')
            else:
                self.tell(self.tag(who, speech, mood))
        self.asker = who if speech[-1] == "?" else ""
        self.speaker = who

    def tag(self, who: str, speech: str, mood: str, *, is_split: bool = False) -> str:
        """The template of a speech with its speaker, a verb that fits its last mark, and a gesture.

        Where more of the speech follows (`is_split`), the speaker comes after the first sentence.
        """
        is_mixed = speech[-1] == "?" and "." in speech
        verbs = words.SAID[mood]["." if is_mixed else speech[-1]]
        if speech[-1] == "." and self.asker not in ("", who):
            verbs += "|answered|replied"
        verb = self.pick(verbs)
        manner = self.fresh("manner " + mood, words.MANNER[mood]).replace("{x", "{" + who)
        beat = self.fresh("beat " + mood, words.BEATS[mood]).replace("{x", "{" + who)
        name, pronoun = f"{{{who}}}", f"{{{who}.he}}"
        quoted = f'"{speech[:-1]}," ' if speech[-1] == "." else f'"{speech}" '
        if is_split:
            return f"{quoted}{verb} {name} {manner}."
        return self.pick(
            [
                f"{quoted}{verb} {name} {manner}.",
                f"{quoted}{verb} {name} {manner}.",
                f"{quoted}{pronoun} {verb} {manner}.",
                f'{name} {verb} {"" if manner.startswith("and") else manner}, "{speech}"',
                f'{name} {beat}. "{speech}"',
            ]
        )

    def text(self) -> str:
        return "\n".join(tidy(paragraph) for paragraph in self.paragraphs if paragraph.strip())

    # --- Casting ----------------------------------------------------------------------------------

    def new_name(self, names: str) -> str:
        taken = {value.name for value in self.roles.values() if isinstance(value, Character)}
        return self.pick([name for name in split_top(names) if name not in taken])

    def hero(self, role: str = "h", *, traits: str = "", gender: str = "") -> None:
        """A child or a small animal, as this story's world has it."""
        gender = gender or self.pick("f|m")
        taken = {value.kind for value in self.roles.values() if isinstance(value, Character)}
        trait = self.pick(traits or words.TRAITS)
        if self.chance(0.25):
            trait = self.pick("very|rather|quite|really") + " " + trait
        small = self.pick("little |young |||")
        if self.is_animal_world:
            kind = self.pick([kind for kind in words.ANIMALS if kind not in taken])
            name = self.new_name(words.ANIMAL_GIRLS if gender == "f" else words.ANIMAL_BOYS)
            small = "" if kind.endswith(("ling", "cub", "puppy", "piglet", "lamb")) else small
            hand = words.ANIMALS[kind]
        else:
            kind = "girl" if gender == "f" else "boy"
            name = self.new_name(words.GIRLS if gender == "f" else words.BOYS)
            hand = "hand"
        self.roles[role] = Character(name=name, kind=kind, gender=gender,
                                     look=f"{trait} {small}{kind}", hand=hand)

    def friends(self, *, traits: str = "", friend_traits: str = "", robots: bool = False) -> None:
        """The hero h and a friend f; the friend of a child is sometimes a robot."""
        self.hero("h", traits=traits)
        other = "m" if self.roles["h"].gender == "f" else "f"
        self.hero("f", traits=friend_traits,
                  gender=other if self.chance(0.7) else self.roles["h"].gender)
        if robots and not self.is_animal_world and self.chance(0.15):
            look = self.pick("small|silver|round|friendly|shiny|blue|tall") + " robot"
            self.roles["f"] = Character(name=self.new_name(words.ROBOTS), kind="robot",
                                        gender=other, look=look)

    def elder(self, role: str = "e", *, names: str = words.ELDERS) -> None:
        """A grown-up of the family."""
        name = self.pick(names)
        gender = "f" if name.startswith(("Mom", "Grandma", "Aunt")) else "m"
        hand = self.roles["h"].hand if "h" in self.roles else "hand"
        self.roles[role] = Character(name=name, kind="elder", gender=gender, hand=hand)

    def neighbor(self, role: str = "n", jobs: str = "") -> None:
        """Somebody from outside the family: Mrs. Hill, Old Badger, or with `jobs` "the baker"."""
        gender = self.pick("f|m")
        if jobs:
            name = "the " + self.pick(jobs)
        elif self.is_animal_world:
            name = "Old " + self.pick("Owl|Badger|Turtle|Goose|Toad|Crow|Goat|Otter")
        else:
            title = "Mrs." if gender == "f" else "Mr."
            family = "Hill|Brown|Lee|Park|Green|Rivera|Stone|Bell|Khan|Wood|Field|Baker"
            name = f"{title} {self.pick(family)}"
        self.roles[role] = Character(name=name, kind="neighbor", gender=gender,
                                     hand=self.roles["h"].hand)

    def thing(self, role: str, nouns, colors=words.BRIGHT) -> None:
        self.roles[role] = Thing(noun=self.pick(nouns), color=self.pick(colors) if colors else "")

    def place(self, role: str = "p", among: str = "") -> None:
        name = self.pick(among or list(words.PLACES))
        self.roles[role] = Place(name=name, prep=words.PLACES[name])

    # --- Pieces every frame can use ---------------------------------------------------------------

    def open(self, *, friend: bool = False, keepsake: bool = True, pocket: bool = True) -> None:
        """Introduce the hero, perhaps the friend too, and a thing that comes back at the end."""
        self.let(home=words.ANIMAL_HOMES if self.is_animal_world else words.HOMES,
                 loves=words.LOVES)
        if friend and self.chance(0.45):
            self.one(
                "{h.full} and {f.full} were [best friends|good friends|neighbors and friends].",
                "{home}, {h.a} named {h} and {f.a} named {f} lived [next door to each other"
                "|side by side|only a few steps apart].",
                "[Once upon a time,|Once,|Long ago,|Not so long ago,] there were two friends. [One "
                "was|The first was] {h}, {h.a}, and the other was {f}, {f.a}.",
                "{h} was {h.a}, and {f} was {f.a}. They [played together every day"
                "|were always together|had been friends for as long as they could remember"
                "|did almost everything together].",
            )
            return self.fill_pocket() if pocket else None
        self.one(
            "[Once upon a time,|Once|Long ago,|Not so long ago,] there [was"
            "|lived] {h.a} named {h}.",
            "{home} [lived|there lived] {h.a} named {h}.",
            "{h} was {h.a} who lived {home}.",
            "There [was once|once was] {h.a} [called|named] {h} who lived {home}.",
            "{h.full} lived {home}.",
            "This is [a|the] story [about|of] {h}, {h.a} who loved {loves}.",
            "{h} was {h.a}, and {h.he} loved {loves} [more than anything|very much|all day long"
            "|most of all].",
            "There are many [girls|boys] in the world, but only one was like {h}, {h.a} who lived "
            "{home}." if self.roles["h"].kind in ("girl", "boy") else
            "of all the [animals|creatures] around, {h}, {h.a}, [laughed the most"
            "|asked the most questions|had the best ideas|was the busiest].",
            "let me tell you about {h}. {h.he} was {h.a} and lived {home}.",
            "do you know {h}? {h.he} was {h.a}, and {h.he} loved {loves}.",
            "{h} loved {loves}. {h.he} was {h.a} and [lived|made {h.his} home] {home}.",
            "Everyone who lived nearby knew {h}, {h.a} [who was never in a hurry"
            "|who always had a song to hum|with bright eyes|who asked a hundred questions a day"
            "|who laughed often|who liked to be outside].",
        )
        if "loved" not in self.paragraphs[-1]:
            self.maybe(0.3, "{h.he} loved {loves}.")
        if keepsake and not friend and self.chance(0.3):
            self.thing("k", words.KEEPSAKES)
            self.one(
                "{h} always [wore|carried] {k.a}." if self.roles["k"].noun in ("bag", "backpack")
                else "{h} always wore {k.a}.",
                "{h.he} never [went out|left the house] without {h.his} {k.full}.",
                "wherever {h.he} went, {h.his} {k.full} went too.",
            )
        if friend:
            self.one(
                "{h.his} best friend was {f.a} named {f}.",
                "{f}, {f.a}, was {h.his} [best|dear|good] friend.",
                "{h.he} had a [good|dear|best] friend, {f.a} named {f}.",
            )

        if pocket and "k" not in self.roles:
            self.fill_pocket()

    def fill_pocket(self) -> None:
        """Perhaps the hero carries some small treasure, which comes back in the last lines."""
        if self.chance(0.35):
            self.thing("o", words.TREASURES, words.COLORS)
            self.one(
                "{h} [had|carried|kept] {o.a} in {h.his} pocket [for luck|, and nobody knew why|].",
                "[Not long before|Once|A few days before], {h} had found {o.a} [on the road"
                "|by the gate|in the grass|under a stone] and put it in {h.his} pocket.",
                "{h.he} had {o.a}, and {h.he} [took it everywhere|held it when {h.he} had to think"
                "|never lost it].",
            )

    def empty_pocket(self) -> None:
        """What becomes of the small treasure in the end."""
        told = [
            "{h} [put|laid] {o.the} [under the pillow|on the window sill|next to the bed"
            "|back in the pocket].",
            "{h} [took out|looked at] {o.the}. It [had brought luck after all"
            "|shone a little in the light|felt warm].",
            "[All the while|The whole time], {o.the} had been in {h.his} pocket.",
        ]
        if isinstance(self.roles.get("f"), Character):
            told += 2 * ["And {h} gave {o.the} to {f}, [to keep|as a present"
                         "|because {f.he} had been so good|for luck]."]
        self.one(*told)

    def today(self, clause: str, *, skies: str = "sunny|sunny|cloudy|windy",
              hours: str = "morning|day|afternoon") -> None:
        """Tell when it is and what the weather is like, then `clause`, which happens first."""
        self.sky, self.hour = self.pick(skies), self.pick(hours)
        self.let(adj=words.SKIES[self.sky], hour=self.hour)
        self.let(ambient=words.AMBIENT[self.sky])
        if not self.chance(0.5):
            self.one("One {adj} {hour}, " + clause, "On a {adj} {hour}, " + clause)
            return
        begin = "[Early one|Late one|One] {hour}, " if self.hour != "day" else "One day, "
        self.one(
            "[One|One|On a] {adj} {hour}, " + clause,
            begin + clause,
            "It [began|started] on a {adj} {hour}. " + clause,
            "It [happened|was] on a {adj} {hour}: {ambient}. " + clause,
            "It was a {adj} {hour}. " + clause,
            "It was a {adj} {hour}, and {ambient}. " + clause,
            "One {hour}, when {ambient}, " + clause,
        )

    def stroll(self, p: float = 0.4) -> None:
        """Perhaps something is seen on the way."""
        if not self.chance(p):
            return
        sights = words.SIGHTS["cold" if self.sky == "snowy" else "warm"]
        self.roles["sight"] = self.fresh("sights", sights)
        self.one(
            "On the way, {h.he} [saw|passed|noticed] {sight}.",
            "{h.he} [stopped|stood still] for a moment to look at {sight}.",
            "[There was|Along the way there was] {sight}, but {h.he} did not stop for long.",
        )

    def close(self, lesson: str = "", *, where: str = "home") -> None:
        """The last lines: what was learned, and a last picture, at "home", in "bed" or none."""
        if lesson and self.chance(0.6):
            self.roles["lesson"] = lesson
            told = [
                "{h} [had learned|knew now|understood now|had found out] that {lesson}.",
                "{h} [smiled and thought|said to {h.himself}|told everyone at supper"
                "|whispered to the moon that night]: {lesson}.",
                "[So it is|That is how it goes|And that is true for all of us]: {lesson}.",
                "[Sometimes|Most of the time], {h} thought, {lesson}.",
                "[From that day on,|After that day,|Ever since,] {h} [knew|remembered"
                "|never forgot] that {lesson}.",
                "[That night,|Later,|Before bed,] {h} thought about it. [It was true:"
                "|Yes,] {lesson}.",
                "[And|So] {h} [learned|found out] something [new|good|important]: {lesson}.",
            ]
            speakers = [role for role in ("e", "n") if isinstance(self.roles.get(role), Character)]
            if speakers and self.chance(0.35):
                self.speak(speakers[0], self.pick(
                    "You see, {lesson}.|Remember, {lesson}.|It is true that {lesson}."), "wise")
            else:
                self.one(*told)
        if "o" in self.roles and self.chance(0.75):
            self.empty_pocket()
        elif "k" in self.roles and where and self.chance(0.8):
            self.one(
                *{
                    "home": [
                        "{h} [hung|put] {h.his} {k.full} [by the door|on its hook"
                        "|away], [tired but happy|and smiled|humming a little song].",
                        "{h} [took off|put down] {h.his} {k.full} and [sat down by the fire"
                        "|told the whole story at supper|smiled].",
                        "[On the way home|All the way home], {h} held {h.his} {k.full} close and "
                        "[smiled|hummed|thought about the day].",
                    ],
                    "bed": [
                        "{h.his} {k.full} hung on the chair, waiting for [morning|the next day"
                        "|tomorrow].",
                        "beside the bed, the {k.full} was waiting for [morning|the next day"
                        "|tomorrow].",
                    ],
                }[where]
            )
        elif where == "bed" and self.chance(0.5):
            self.one(
                "[Outside, the moon was shining|Outside, the stars came out"
                "|The moon looked in at the window], and {h} slept [well|soundly|until morning].",
                "{soon} {h} was fast asleep.",
            )


def split_top(options: str) -> list[str]:
    """The alternatives of "a|b [c|d]|e" at the top level: "a", "b [c|d]", "e"."""
    parts, depth = [""], 0
    for char in options:
        depth += (char == "[") - (char == "]")
        if char == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts
