"""Plots between friends: sharing, apologizing, keeping a promise, making room for somebody new."""

from stories import words
from stories.story import Story, the


def sharing_a_snack(s: Story) -> None:
    """One has food, the other has none; it is counted before and after, and the numbers agree."""
    s.friends(traits=("kind", "thoughtful", "quiet", "cheerful", "busy", "careful"))
    s.place("p")
    half = s.rng.randrange(1, 5)
    s.roles |= {
        "snack": s.pick("apple|pear|plum|cookie|cherry|carrot|muffin|bun|pancake|walnut|cracker"),
        "whole": words.NUMBERS[2 * half], "half": words.NUMBERS[half], "why": s.pick(
            "I left my lunch at home|My bag had a hole in it|I was in a hurry this morning"
            "|My little sister ate my lunch|I dropped mine in the mud|A bird flew off with mine"),
    }
    s.roles["halves"] = plural(s, "snack", half)
    s.roles["snacks"] = plural(s, "snack", 2 * half)
    s.open()
    s.today("{h} [went|walked|set out] to {p} with {whole} {snacks} in [a bag|a small basket"
            "|a paper bag|a box].")
    s.stroll()
    s.one(
        "{f.full} was [already there|there too|sitting there], but {f.his} [lunch box|basket"
        "|bag] was empty.",
        "[Under a tree|On a bench|On a flat stone] sat {f.a} named {f}, who had nothing to eat.",
        "{h.his} friend {f.full} came too, but {f.he} [did not have any food|had nothing to eat"
        "|had not brought a thing].",
    )
    s.speak("h", "[Where is your snack|Aren't you hungry|Why aren't you eating"
            "|Didn't you bring anything], {f}?", "kind")
    s.speak("f",
            "{why}. [I'm so hungry|My tummy is growling|Now I have nothing to eat|I feel silly].",
            "sad")
    s.para()
    if s.chance(0.35):
        s.tell(
            "{h} looked at the {snacks}. {h.he} [was hungry too|wanted to eat them all"
            "|had waited for them all day].",
            "[But then|Then] {h.he} looked at {f} and [knew what to do|felt sorry for {f.him}"
            "|thought how it must feel].",
        )
    else:
        s.maybe(0.6, "{h} did not have to think [for long|twice].",
                "{h} [looked at the food and then at {f}|thought about it for only a moment].",
                "{h} [moved over|patted the grass] to make room.")
    s.speak("h", "[We can share|Let's share|I have enough for two"
            "|Half of these are yours]. [Here, take {half}|{half} for you and {half} for me]!",
            "happy")
    s.one(
        "{h} put {half} {halves} in front of {f} and kept {half}.",
        "{f} got {half} {halves}, and {h} kept {half}.",
        "{h.he} counted {whole} {snacks} into two [small|neat] piles, with {half} in each.",
    )
    s.speak("f", "{thanks}, {h}! [This tastes so good|You are a real friend|I feel much better now"
            "|Nothing ever tasted better]!", "happy")
    s.maybe(0.5, "they ate [slowly|every bite|in the shade] and [talked|told jokes"
            "|watched the clouds|laughed].")
    if s.chance(0.6):
        s.para()
        s.roles["treat2"] = s.fresh("treat", words.POOLS["treat"])
        s.tell(
            "The next day {f} [came back|ran up to {h}|was waiting at {p}"
            "|knocked at {h.his} door] with a {treat2}.",
            "[Half of it was|{f.he} broke it in two, and one half was"
            "|This time the bigger half was] for {h}.",
        )
    s.close("[food tastes better when it is shared|sharing makes a small meal big"
            "|half can be more than enough|a shared snack makes a good friend]")


def plural(s: Story, role: str, n: int) -> str:
    """The noun of a role, in the plural unless n is one."""
    noun = s.roles[role]
    if n == 1:
        return noun
    if noun.endswith("ry"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("h", "s", "x")) else "s")


def broken_and_sorry(s: Story) -> None:
    """Something of a grown-up breaks; it is hidden, or told at once; the truth makes it better."""
    s.hero(traits=("playful", "lively", "curious", "busy", "shy", "cheerful"))
    s.elder()
    s.thing("t", words.BREAKABLES)
    s.roles["how"] = s.pick(
        "kicked a ball inside the house|danced around the kitchen"
        "|ran through the room with {h.his} arms out|chased a fly with a spoon"
        "|climbed on a chair to reach the cookies|spun around and around"
        "|pretended to be an airplane"
    )
    s.open(keepsake=False)
    s.one(
        "{e} had {t.a} that {e.he} loved, because [it was very old|it had been a gift"
        "|{e.his} own mother had made it].",
        "On the [shelf|table|window sill] stood {t.a}. It [belonged to {e}|was {e.his} favorite].",
        "{e.his} favorite thing in the kitchen was {t.a} [with tiny flowers on it"
        "|with a thin gold line|from far away].",
    )
    s.today("{h} {how}, [even though {h.he} knew better|just for fun|faster and faster].",
            skies="rainy|cloudy|sunny|windy")
    s.one(
        "Crash! {t.the} fell to the floor and [broke|broke in two|broke into three pieces].",
        "{suddenly} there was a loud crash. {t.the} lay on the floor in pieces.",
        "Bump! {t.the} [tipped|wobbled and fell|rolled off the edge] and [broke|cracked].",
    )
    s.maybe(0.6, "{h.his} [face grew hot|heart beat fast|tummy felt like a stone].",
            "{h} stood very still.", "[{oh}|Oh]! What now?")
    hides = s.chance(0.6)
    if hides:
        s.para()
        s.roles["spot"] = s.pick(words.INDOORS)
        s.tell(
            "[Quickly,|As fast as {h.he} could,|Without a sound,] {h} hid the pieces {spot}.",
            "[All day|The whole day|At supper], {h} [could not laugh|did not feel like playing"
            "|felt worse and worse|could not eat].",
        )
        s.speak("e", "[Have you seen|Do you know what happened to|Where is] my {t.full}, {dear}?",
                "kind")
        if s.chance(0.5):
            s.speak("h", "[No|I don't know|Maybe the cat took it].", "sorry")
            s.tell("But the words [felt wrong|tasted bad|hurt inside]. That night {h} [could not "
                   "sleep|lay awake for a long time].")
            s.para()
            s.tell("[In the morning|Early the next day], {h} [went to look for {e}"
                   "|took a deep breath and went to {e}|got up first and waited for {e}].")
        else:
            s.tell("{h.his} eyes filled with tears.")
    else:
        s.one("{h} wanted to hide the pieces. [But that would not be right|But {h.he} did not].",
              "{h} went straight to {e}.")
    s.speak("h", "I broke your {t.full}. [I'm so sorry|I am very sorry|I didn't mean to].", "sorry")
    if hides:
        s.maybe(0.6, "And {h.he} showed {e} the pieces {spot}.")
    s.one(
        "{e} was quiet for a [moment|little while]. Then {e.he} [opened {e.his} arms"
        "|took {h.his} {h.hand}|sat down next to {h}].",
        "{e} [looked at the pieces and sighed|did not shout]. Instead, {e.he} [gave {h} a hug"
        "|knelt down].",
    )
    s.speak("e", "[Thank you for telling me|I'm glad you told me the truth"
            "|That was brave of you]. [A {t} is only a {t}|We can fix a {t}"
            "|I care more about you than about a {t}].", "kind")
    if s.chance(0.65):
        s.para()
        s.tell("Together they [glued it|put the pieces back together"
               "|fixed it with glue], [piece by piece|until only a thin line was left].")
        s.one(
            "Now {t.the} had a crack that looked like a [river|smile"
            "|little road], and {e} [said that was the best part|liked it even more].",
            "It was not [perfect|as pretty as before], but it stood on the [shelf|table] again.",
        )
    else:
        s.tell("The next [day|week], {h} [saved up|helped in the garden to earn some coins] and "
               "bought {e} a [small|new] {t} with [dots|stars|stripes].")
    s.close("[telling the truth feels better than hiding|a hidden thing grows heavy, but the truth "
            "is light|it is better to say sorry at once]", where="")


def the_new_one(s: Story) -> None:
    """Somebody new stands alone; one small invitation changes that."""
    s.friends(traits=("friendly", "cheerful", "kind", "lively", "funny"),
              friend_traits=("shy", "quiet"), robots=True)
    s.place("p", "the park|the playground|the meadow|the garden|the beach|the pond|the river")
    s.roles |= {"game": s.pick("tag|hide and seek|catch|hopscotch|follow the leader|leapfrog"
                               "|pirates|school|bakery")}
    s.roles["skill"] = s.pick(
        "whistle like a bird|stand on one leg for a very long time|make a boat from a leaf"
        "|count backward from twenty|walk on {f.his} hands|juggle three stones|make funny faces"
        "|jump over a log without a run|tell very good jokes"
    )
    s.open()
    s.today("{h} [was playing|wanted to play|was on the way to play] {game} {p.at} [with some "
            "friends|with the others|as usual].")
    s.one(
        "{h.he} saw [somebody|someone] new. It was {f.a}, [standing"
        "|sitting] all alone [by the fence|near a tree|at the edge].",
        "[Not far away|Behind a tree|Near the path] stood {f.a} whom nobody knew. {f.he} [looked "
        "at the ground|did not say a word].",
        "{f.a} was watching from [far away|behind a bush|the other side]. {f.he} had [just moved "
        "there|come only the day before].",
    )
    s.maybe(0.6, '"[I wonder who that is|I have never seen that one before]," said [one of the '
            'others|somebody], [and went on playing|but nobody moved].',
            "The others went on playing.", "Nobody [said hello|went over to say hello].")
    s.tell("~{h} remembered [how it felt to be new|{h.his} own first day"
           "|what it was like to have no one to play with].")
    s.speak("h", "[Hello|Hi]! [My name is|I'm] {h}. What's your name?", "kind")
    s.one("{f.he} [looked up|blinked|did not answer right away].",
          "For a moment there was no answer.", "")
    s.speak("f", "[I'm|My name is] {f}. [I don't know anybody here|I just moved here"
            "|We came yesterday, and everything is strange].", "shy")
    s.speak("h", "[Now you know me|Well, now you know one of us"
            "|That will change soon]! [Do you want|Would you like] to play {game}?", "happy")
    s.para()
    if s.chance(0.5):
        s.tell("{f} [had never played {game} before|did not know how to play {game}], so {h} "
               "[explained the rules|showed {f.him} how], [step by step|slowly|twice].")
        s.tell("At first {f} [made mistakes|was slow|ran the wrong way], but {soon} {f.he} was "
               "[laughing|one of the best|running with all the others].")
    else:
        s.tell("They played [all morning|until they were out of breath"
               "|and played], and {f} [laughed for the first time that day|forgot to be shy"
               "|smiled more and more].")
    if s.chance(0.65):
        s.tell("{then} {f} showed them something: {f.he} could {skill}!")
        s.speak("h", "{wow}! [Can you teach me that|How do you do that|Can you do it again]?",
                "excited")
        s.maybe(0.6, "By the end of the day, {h} could [almost |nearly |]do it too.")
    s.para()
    s.one(
        "When it was time to go home, {f} [waved|smiled a shy smile]. \"[May I come again"
        "|Will you be here] tomorrow, {h}?\"",
        "In the evening {f} did not feel [new|alone|like a stranger] anymore.",
        "[The next day|The day after], when another new face [came to {p}"
        "|stood by the fence], it was {f} who said hello first.",
    )
    s.close("[one hello can change a whole day|a friend can begin with one small hello"
            "|nobody stays new for long when somebody is kind]")


def promise_kept(s: Story) -> None:
    """A promise is made, something tempting gets in the way, and the promise wins, or only just."""
    s.friends()
    s.place("p")
    jobs = {
        "water {x} [tomatoes|beans|sunflowers]":
            "the plants were [green and strong|standing tall|full of buds]",
        "feed {x} [fish|goldfish|snail|little brown hen]":
            "it was [fat and happy|well and happy|as lively as ever]",
        "feed {x} three hens": "there were [two|four|five] fresh eggs in the nest",
        "look after {x} [small garden|little garden]": "there was not one weed [to be seen|left]",
        "light the lamp in {x} window":
            "the lamp was shining [like a small star|in the dark to show the way]",
    }
    job = s.pick(list(jobs))
    s.roles |= {"job": s.choose(job.replace("{x}", "my")), "result": jobs[job]}
    s.roles["fun"] = s.pick(
        "a puppet show came to town|the others went swimming|there was a big ball game"
        "|a boat trip was planned|there was a party with cake|everyone was flying kites"
        "|the snow was just right for sleds"
    )
    sky = "snowy" if "snow" in s.roles["fun"] else "sunny|windy|cloudy"
    s.open(friend=True)
    s.roles["days"] = s.pick("two|three|four|five|six")
    s.tell("{f} had to [go away|visit {f.his} grandmother|go on a trip] for {days} days.")
    s.speak("f", "[Will you|Could you|Can you] {job} while I'm away[, every day|, please|]?")
    s.speak("h", "[I promise|You can count on me|Yes, I promise]. [I won't forget"
            "|Not one day will be missed|You'll see].", "kind")
    s.para()
    s.tell("~[On the first day|At first], it was easy. {h} [went over after breakfast"
           "|did it with a song|did just what {h.he} had promised].")
    s.today("{fun}.", skies=sky, hours="morning|afternoon")
    s.speak("h", "~[Oh, I want to go|I would love to go|How I want to go]! [But"
            "|And yet] I made a promise.", "sad")
    s.para()
    if s.chance(0.5):
        s.tell(
            "{h} [started to run after the others|put on {h.his} shoes and ran out"
            "|was already at the corner].",
            "Then {h.he} [stopped|stood still|turned around]. {h.he} [thought of {f}"
            "|remembered {f.his} face|heard {f.his} voice in {h.his} head].",
            "So {h} went to {f.his} house first [and did the work"
            "|and did what had to be done]. [It did not take long|It took only a little while].",
        )
        s.one("{h.he} came late, but [there was still time for fun"
              "|the best part was still to come].",
              "When {h.he} was done, the others were [gone|already coming home], and {h} felt a "
              "little sad, but also proud.")
    else:
        s.tell("{h} [thought about it|looked out of the window"
               "|took a deep breath]. A promise was a promise, so {h.he} [stayed|did not go"
               "|went to {f.his} house instead].")
        s.maybe(0.6,
                "In the evening the others [told {h.him} all about it|brought {h.him} a {treat}].")
    s.para()
    s.tell("After {days} days {f} came home. {f.he} [went to look at once"
           "|ran to look], and {result}.")
    s.speak("f", "You [did it every day|kept your promise|really did it]! {thanks}, {h}!", "happy")
    s.thing("t", "shell|stone|feather|whistle|cup|ribbon|marble")
    s.tell("{f} had brought {h} [a present|something|something small]: {t.a}.")
    s.close("[a kept promise is a gift too|a promise is worth more than a game"
            "|friends can trust a kept promise]")


def a_trade(s: Story) -> None:
    """A chain of swaps: each owner needs what the next one gives; the end can tell it backward."""
    s.hero()
    s.elder()
    s.open(pocket=False)
    things = s.sample(words.TREASURES, 4)
    needs = {
        "shell": "to hear the sea in it", "feather": "to write with",
        "marble": "for the eye of a toy dragon", "button": "for a coat", "coin": "for luck",
        "pebble": "to hold a door open", "acorn": "to plant a tree", "bell": "for the cat",
        "ribbon": "for a present", "key": "for an old box", "stamp": "for a letter",
        "bead": "for a necklace", "pinecone": "for a fire", "whistle": "to call the dog",
    }
    s.roles |= {f"x{i}": noun for i, noun in enumerate(things)}
    s.thing("x0", [things[0]])
    wish = s.pick("a pie|a kite|a warm bun|a little boat|a jar of honey|a ball of blue yarn"
                  "|a seed cake|a paper lantern")
    s.roles |= {"wish": wish, "the_wish": the(wish)}
    s.tell("It was almost {e.his} birthday, and {h} wanted to give {e.him} {wish}. But {h.he} had "
           "no money. {h.he} had only {x0.a}.")
    s.today("{h} [put the {x0} in {h.his} pocket|took the {x0}|held the {x0} tight] and [went out"
            "|set off|walked to the market].")
    for i in range(2):
        s.para()
        jobs = "baker|farmer|tailor|teacher|fisher|painter|postman|miller|gardener"
        s.neighbor("n", jobs if s.chance(0.6) else "")
        s.roles |= {"give": things[i + 1], "need": needs[things[i]], "have": things[i]}
        s.tell("[On the road|At the corner|By the well|Near the bridge|In front of a shop"
               "|At the gate] {h} met {n}.")
        s.speak("n", "[What a {lovely} {have}|That {have} is just what I need"
                "|I have been looking for a {have} {need}]! [I'll give you this {give} for it"
                "|I can give you a {give} for it|Let's swap it for my {give}].")
        if s.chance(0.5):
            s.speak("h", "[All right|Yes, please|Gladly|That is fair]!", "happy")
        else:
            s.tell("{h} [nodded|thought it was fair|agreed], and they [swapped"
                   "|shook {h.hands} on it|traded].")
    s.para()
    s.roles["have"], s.roles["need"] = things[2], needs[things[2]]
    s.neighbor("n")
    s.tell("Last of all, {h} came to {n}, who [had|was selling|had just made] {wish}.")
    s.speak("h", "[Would you|Could you|Will you] trade {the_wish} for a {have}?", "shy")
    s.speak("n", "[I need a {have} {need}|A {have} is the very thing I need {need}"
            "|For that {have}, yes]. [Here you are|It is yours|Take it]!", "kind")
    s.para()
    s.tell("So the {x0} became a {x1}, the {x1} became a {x2}, and the {x2} became {wish}.")
    s.tell("{e} [was {glad}|clapped {e.his} {e.hands}|gave {h} a long hug] and [asked"
           "|wanted to know] where it came from. {h} [laughed|smiled], for it was a long story.")
    del s.roles["n"]
    s.close("[what is small to one is just right for another|a good trade makes both sides glad]")


def taking_turns(s: Story) -> None:
    """Two want one thing; pulling breaks the fun, a rule mends it."""
    s.friends(traits=("lively", "playful", "busy", "curious"))
    what, act = s.pick([
        ("swing", "swing high"), ("red wagon", "ride down the path"),
        ("scooter", "ride to the corner"),
        ("big drum", "play the drum"), ("sled", "slide down the hill"),
        ("magnifying glass", "look at the ants"),
        ("spyglass", "look at the boats"), ("yellow tricycle", "ride around the yard"),
        ("garden hose", "water the flowers"), ("hammock", "lie in it"), ("slide", "slide down"),
    ])
    s.roles |= {"it": what, "act": act, "count": s.pick("five|six|seven|eight|ten|twelve|twenty")}
    s.open(friend=True, keepsake=False)
    s.today("they [found|saw|came to] a {it} that nobody was using.",
            skies="snowy" if what == "sled" else "sunny|windy|cloudy")
    s.speak("h", "[I saw it first|Me first|It's my turn]!", "excited")
    s.speak("f", "[No, I did|No, me|But I was here before you]!", "cross")
    s.tell("{h} pulled. {f} [pulled too|pulled back|held on tight].")
    s.one(
        "{suddenly} both of them [fell over|sat down hard on the ground"
        "|slipped and landed in the dirt].",
        "In the end nobody could {act}, and both were cross.",
        "{h} began to cry, and {f} [turned away|stamped {f.his} feet].",
    )
    s.para()
    if s.chance(0.5):
        s.neighbor()
        s.tell("{n} [came by|was walking past|had seen it all].")
        s.speak("n", "[What if you take turns|Why not take turns|Have you tried taking turns]? One "
                "can {act} while the other counts to {count}.", "kind")
    else:
        s.tell("They sat there for a while. {then} {f} had an idea.")
        s.speak("f", "[Let's take turns|We could take turns]. [You go first, and I count to {count}"
                "|You {act} while I count to {count}, and then we change].", "kind")
        s.speak("h", "{agreed}. [That is fair|I like that|That is better than pulling].", "happy")
    s.tell("So {h} [went first|got the first turn] while {f} counted [slowly|out loud"
           "|in a silly voice]. At {count}, {h} stopped and it was {f.his} turn.")
    s.one(
        "They took [six|eight|ten] turns each, and the counting was [half of the fun"
        "|as much fun as the {it}].",
        "{soon} others came, and [there was a line|they all stood in line], and everyone counted "
        "together.",
        "{f} counted so [fast|oddly] that {h} laughed and nearly fell down.",
    )
    s.close("[one thing is enough for two who take turns|waiting is easy when you can count"
            "|taking turns is better than pulling]")


def secret_party(s: Story) -> None:
    """A secret that looks like unkindness, until it turns out to be a party."""
    s.friends(traits=("quiet", "curious", "thoughtful", "cheerful"))
    s.hero("g")
    s.open(friend=True, keepsake=False)
    s.roles["cake"] = s.pick("carrot|honey|lemon|berry|plum|apple|nut|banana")
    s.thing("t", "hat|kite|scarf|drum|boat|notebook|ball|paint box")
    s.today("{h} saw {f} and {g.full} whispering [behind the shed|by the old tree|at the corner"
            "|under the bridge].")
    s.speak("h", "[What are you talking about|What is it|May I hear it too]?", "plain")
    s.one("{f} [jumped|looked at {g}|put something behind {f.his} back].",
          "They [stopped at once|looked at each other].")
    s.speak("f", "[Oh, nothing|Nothing at all|It's nothing, {h}]! [We have to go|We're busy today"
            "|See you later]!", "plain")
    s.para()
    is_hidden = s.chance(0.5)
    s.let(seen="hide something {t.color} under {f.his} coat" if is_hidden else
        "carry a big bag|run past with flour on {f.his} nose|buy ten candles"
          "|climb a ladder with a rope")
    s.tell("{h} felt {sad}. [Later|At noon|That afternoon], {h.he} saw {f} {seen}.")
    s.tell("~{g} [walked by without a word|did not come to play|only waved and hurried on].")
    s.speak("h", "[Maybe they don't like me anymore|They don't want to play with me"
            "|I think they forgot me].", "sad")
    s.maybe(0.6,
            "{h.he} sat on the steps [alone|and threw little stones|and looked at {h.his} feet].",
            "{h.he} [walked home slowly|kicked a stone all the way home].")
    s.para()
    s.tell("[In the evening|As the sun went down|Just before supper] there was a knock at the "
           "door. {f} stood there with [a lantern|a big smile].")
    s.speak("f", "[Come with me|Come quickly|You have to see this]! [Close your eyes|No questions"
            "|Don't ask why]!", "excited")
    s.tell("They walked to [the old oak tree|the apple tree by the pond"
           "|the big tree on the hill]. {h} [opened {h.his} eyes|looked up]. There were [lights"
           "|paper flowers|ribbons] in the branches, and on a table stood a {cake} cake.")
    s.speak("g", "[Surprise|Happy birthday, {h}]! [We almost told you"
            "|It was so hard to keep the secret|We were whispering about this all day]!", "happy")
    s.tell("The thing under {f.his} coat had been a present: {t.a}." if is_hidden
        else "There was a present, too: {t.a}.")
    s.maybe(0.6, "{h} laughed until {h.he} cried.", "{h} did not know whether to laugh or cry.",
            "{h} hugged them both.")
    s.close("[not every secret is a bad one|some whispers are the kind sort"
            "|friends can be quiet because they are planning something good]")


def bragging(s: Story) -> None:
    """A boast, a test, a fall; the one who was laughed at helps."""
    s.friends(traits=("proud", "loud", "lively"),
              friend_traits=("quiet", "patient", "gentle", "thoughtful"))
    feat, fail, rescue = s.pick([
        ("jump over the stream", "landed in the cold water with a splash",
         "held out a long stick and pulled {h.him} out"),
        ("climb to the top of the tall tree", "got stuck on a high branch and could not come down",
         "called up where to put each foot, until {h.he} was down"),
        ("carry six pots at once", "dropped them all with a crash",
         "came with a broom and helped to pick up the pieces"),
        ("run down the hill with {h.his} eyes closed", "rolled right into a thorn bush",
         "picked out the thorns, one by one"),
        ("balance on the garden wall", "slipped and fell into the mud",
         "brought a towel and a kind word"),
        ("eat a whole pie alone", "got a terrible tummy ache",
         "brought a warm blanket and peppermint tea"),
        ("find the way through the maze in one minute", "got lost at the third corner",
         "followed the sound of {h.his} voice and led {h.him} out"),
        ("ride the wild goat", "flew through the air and landed in the hay",
         "caught the goat and asked if {h.he} was hurt"),
    ])
    s.roles |= {"feat": feat, "fail": fail, "rescue": rescue,
                "as_said": feat.replace("{h.his}", "my")}
    s.open(friend=True, keepsake=False)
    s.one(
        "{h} liked to say how [strong|fast|clever|great] {h.he} was.",
        "{h} [bragged from morning to night|could talk about {h.himself} all day].",
        "{h} had one bad habit: {h.he} bragged.",
    )
    s.today("they [met some friends|were playing outside|sat together].")
    s.speak("h", "I can {as_said}! [Nobody else can|None of you could|I am the best of all]!",
            "proud")
    s.speak("f", "[Are you sure|Isn't that dangerous|Should you not try something smaller first]? "
            "[Be careful|It looks hard|I would not dare].", "kind")
    s.speak("h", "~[You are just afraid|You couldn't do it, {f}|Ha! You are too slow, {f}]!",
            "proud")
    s.para()
    s.tell("[Everyone watched|All the others came to look]. {h} [took a deep breath"
           "|lifted {h.his} chin|winked] and began. And {h.he} {fail}.")
    s.maybe(0.6, "Some of the others laughed.", "Nobody said a word.", "{h.his} face turned red.")
    s.tell("But {f} did not laugh. {f} {rescue}.")
    s.speak("h", "[I was not as great as I thought|I should have listened to you"
            "|I said mean things, and you still helped me]. [I'm sorry|Please forgive me].",
            "sorry")
    s.speak("f", "[It's all right|Never mind|That's what friends do]. [Everybody falls sometimes"
            "|Next time we can practice together|You were brave to try].", "kind")
    s.maybe(0.6, "After that, {h} [bragged a little less|thought twice before the word best"
            "|told everyone how kind {f} was].")
    s.close("[big words do not make big deeds|a quiet friend can be the strongest one"
            "|it is better to try than to brag]", where="")


def false_alarm(s: Story) -> None:
    """Jokes that cry for help, until help is needed."""
    s.friends(traits=("funny", "playful", "lively"))
    s.place("p", "the river|the forest|the pond|the meadow|the hill|the lake|the orchard")
    s.roles["danger"] = s.pick("A bear|A big snake|A wolf|A swarm of bees|A giant")
    s.roles["real"] = s.pick(
        "stepped on a rotten branch, and {h.his} foot got stuck"
        "|slid into a deep hole and could not climb out|got caught in a thorn bush and could not "
        "move|climbed on a high rock and could not get down"
        "|sat down in thick mud and could not get up"
    )
    s.open(friend=True, keepsake=False)
    s.tell("{h} loved to play tricks.")
    s.today("they were {p.at}. {h} hid behind a [tree|rock|bush].")
    s.speak("h", "Help! Help! {danger}!", "excited")
    s.tell("{f} [dropped everything and came running|ran as fast as {f.he} could"
           "|came with a big stick]. But there was nothing there but {h}, laughing.")
    s.speak("f", "~[That is not funny|Don't do that again|You scared me]!", "cross")
    s.tell("[A little later|An hour later|After lunch] {h} did it again, and again {f} came "
           "running [for nothing|out of breath]. {f} [went away angry|was really cross now"
           "|said {f.he} would not come a third time].")
    s.para()
    s.tell("{then} {h} went [on alone|a little farther|off by {h.himself}]. There {h.he} {real}.")
    s.speak("h", "Help! {f}, help! This time it's true!", "scared")
    s.tell("{f} heard it, far away, and [shook {f.his} head|thought: another trick|did not move].")
    if s.chance(0.6):
        s.tell("{h} called until {h.his} voice was small. That did not sound like a joke. So {f} "
               "went to look [after all|just in case], and [pulled|helped] {h} free.")
        s.speak("h", "You came! [I thought you would never believe me again|Even after my tricks]!",
                "happy")
        s.speak("f", "[I almost didn't|I nearly stayed away]. How can I know when it's true?",
                "plain")
        s.speak("h", "From now on, it will always be true. [I promise|No more false alarms].",
                "sorry")
    else:
        s.tell("{h} had to wait [a long, long time|until the sun was low]. {atlast} an old goat "
               "came by and helped.")
        s.tell("{h.he} walked home [muddy and quiet|with a sore foot"
               "|without a joke] and knocked at {f.his} door.")
        s.speak("h", "[I called you, and you did not come|You did not believe me], and it was my "
                "own fault. [I'm sorry for my tricks|No more tricks].", "sorry")
        s.tell("{f} [looked at {h.him} for a while|brought {h.him} a towel], and [then they were "
               "friends again|then {f.he} smiled].")
    s.close("[nobody listens to one who always jokes|a cry for help is not a toy]", where="")


def sick_friend(s: Story) -> None:
    """A friend is ill; three visits, one thing that helps."""
    s.friends(traits=("kind", "thoughtful", "cheerful", "funny"))
    s.elder()
    s.open(friend=True)
    s.roles["ill"] = s.pick("had a bad cold|had a sore throat|had spots all over|had a broken leg"
                            "|had a fever|had a cough")
    s.roles["plan"] = s.pick("fly kites|build a dam|go fishing|play ball|pick berries|have a picnic"
                             "|go to the fair")
    s.today("{h} [knocked at {f.his} door|ran over to {f.his} house] because they had planned to "
            "{plan}. But {f} {ill} and had to stay in bed.")
    s.speak("f", "[Now I can't {plan} with you|Everyone is outside but me"
            "|Go without me]. [It's so boring|I have to lie here all week].", "sad")
    s.tell("~{h} walked home [slowly|with {h.his} head down] and [thought|wondered what to do].")
    s.speak("h", "{e}, what helps when [somebody is sick|a friend is ill]?", "plain")
    s.speak("e", "[Warm soup|A good sleep|Rest] helps the body. [A friend helps the heart"
            "|And a laugh helps the rest|But a visit helps most].", "wise")
    s.para()
    gift, effect = s.pick([
        ("a pot of [carrot|potato|tomato|onion] soup",
         "{f} ate [two bowls|every drop] and got a little color in {f.his} face"),
        ("a box of paints, and painted a picture of the hill outside",
         "{f} looked at the picture [for a long time|again and again] and said it was like being "
         "there"),
        ("a puppet made from a sock",
         "the puppet sneezed so loudly that {f} laughed and forgot to cough"),
        ("a fat book of stories, and read three of them aloud",
         "{f} listened with {f.his} eyes closed and saw it all"),
        ("a jar with a snail in it",
         "they watched the snail climb all the way up the glass, and {f} named it Speedy"),
        ("a long string and two cups", "that evening they could talk from window to window"),
    ])
    s.roles |= {"gift": gift, "effect": effect}
    s.tell("[The next day|Right after lunch|Early the next morning], {h} came back. {h.he} brought "
           "{gift}.")
    s.tell("It worked: {effect}.")
    s.speak("h", "~[If you can't go outside, outside comes to you|We can {plan} another day"
            "|There will be another sunny week].", "happy")
    s.maybe(0.6, "Every day {h} came again, and every day {f} was a little better.",
            "{h} came [three|four|five] days in a row.")
    s.tell("[A week later|The next Sunday], {f} stood at {h.his} door, [all well again"
           "|fit as a fiddle|wide awake].")
    s.speak("f", "[I'm ready|Let's go]! Today we'll {plan}!", "happy")
    s.close("[a visit is the best medicine|a friend can bring the sun indoors]", where="")


FRAMES = (
    sharing_a_snack, broken_and_sorry, the_new_one, promise_kept, a_trade, taking_turns,
    secret_party, bragging, false_alarm, sick_friend,
)
