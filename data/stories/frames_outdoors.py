"""Plots under the open sky: weather, water, seeds, kites, and finding the way home."""

from stories import words
from stories.story import Story, the


def lost_and_found(s: Story) -> None:
    """A dear thing is lost; two wrong places, a clue, the right one; it still has its color."""
    s.hero()
    s.elder()
    s.thing("t", words.TOYS)
    inside = s.chance(0.5)
    spots = s.sample(words.INDOORS if inside else words.OUTDOORS, 4)
    s.roles |= {f"s{i}": spot for i, spot in enumerate(spots)}
    s.let(mark="a tiny star|a small letter on the side|a little scratch|a white dot|a bent edge"
          "|the smell of home")
    s.open(keepsake=False)
    s.one(
        "{h.his} [favorite thing|dearest thing] in the whole world was {t.a}. [It was a gift from "
        "{e}|It had {mark}].",
        "{h} had {t.a} with {mark}. {h.he} took it [everywhere|along wherever {h.he} went"
        "|to bed every night].",
        "{e} had given {h} {t.a}, and {h.he} [loved it very much"
        "|would not play with anything else].",
    )
    s.today("{h} [wanted to play with it|looked for it|reached for it], but the {t} was [gone"
            "|not there|nowhere to be seen].")
    s.speak("h", "[{oh}! |]Where is my {t.full}?", "sad")
    s.para()
    s.tell("{h.he} looked {s0}. [It was not there|Nothing but dust|No {t} there"
           "|There was only [an old sock|a lost spoon|a dry leaf]].")
    s.tell("{then} {h.he} looked {s1}. [Not there|It was not there either|Still no {t}"
           "|There sat [a spider|a sleepy fly|a big moth], but no {t}].")
    s.maybe(0.6, "{h} [sat down and cried|felt {sad}|wiped {h.his} eyes].",
            "{h.his} [heart felt heavy|eyes grew wet].")
    s.para()
    if s.chance(0.55):
        s.speak("e", "[Try to remember|Think back|Think hard], {dear}. [Close your eyes and "
                "remember|Let's walk back in our minds].", "kind")
        s.let(before="eating breakfast|putting on my shoes|looking at the rain"
              "|playing hide and seek|chasing a fly" if inside
              else "watching the ants|picking flowers|running after a bird|resting in the shade"
              "|playing hide and seek")
        s.speak("h", "I had it when I was {before}. That was {s2}!", "excited")
        s.tell("{h.he} {ran} to look. [There it was|Yes|And really]: {t.the} lay {s2}, [just where "
               "{h.he} had left it|a little dusty but whole|as if it had waited].")
    else:
        s.hero("f")
        s.tell("{f.full} [came by|heard {h.him}|stopped] and [asked what was wrong"
               "|sat down next to {h}].")
        s.speak("f", "[I can help|Let's look together|Four eyes see more than two]. [What does it "
                "look like?|Tell me about it.]", "kind")
        s.speak("h", "It is {t.a}, and it has {mark}.", "sad")
        s.tell("They [searched|looked] high and low. {suddenly} {f} [pointed|called out|stopped].")
        s.speak("f", "[Something {t.color} is {s3}|I see something {t.color} {s3}]! [Is that it"
                "|Could that be it]?", "excited")
        s.tell("[It was|Yes, it was] {h.his} {t}, with {mark}. {h} [hugged {f}|jumped for joy"
               "|laughed and cried at once].")
    s.one(
        "That night {h} put the {t} [on the chair by the bed|next to {h.his} pillow"
        "|back in its place].",
        "{h} held {t.the} [close|tight] all the way home." if not inside else
        "{h} did not let go of the {t} [for the rest of the day|until supper].",
        "From then on the {t} had [its own place|its own hook"
        "|a box of its own], and {h} always put it back.",
    )
    s.close("[looking is easier with a friend|four eyes see more than two]" if "f" in s.roles
            else "[it helps to think back, step by step|a thing in its place is never lost]",
            where="")


def the_storm(s: Story) -> None:
    """Thunder; someone explains how to count the distance; the counts show the storm leaving."""
    s.hero(traits=("quiet", "gentle", "careful", "curious", "shy"))
    s.elder()
    first = s.rng.randrange(2, 5)
    second = first + s.rng.randrange(2, 5)
    s.roles |= {"n1": words.NUMBERS[first], "n2": words.NUMBERS[second]}
    s.let(hide="under the table|under the blanket|behind the curtain|in the closet|behind {e}"
          "|under the bed", game="they made a tent from [two chairs and a blanket"
          "|the big tablecloth]|they lit a candle and made animals of shadow on the wall"
          "|they baked small cakes|they sang as loudly as the storm"
          "|they drummed on pots to answer the thunder")
    s.open()
    s.tell("There was [only one thing|one thing] {h} [did not like at all|was afraid of]: [thunder"
           "|storms].")
    s.one(
        "One [evening|night|afternoon] the sky [turned black"
        "|grew dark], and the wind [pulled at the roof|rattled the windows|shook the trees].",
        "One hot day, [big|heavy] dark clouds came over the [hill"
        "|roofs]. The birds [stopped singing|were suddenly quiet].",
    )
    s.tell("Then came a flash, and [right after it|a moment later] a [loud|terrible"
           "|great] BOOM! {h} [hid|ran and hid] {hide}.")
    s.speak("h", "[Is the sky falling|Will it hit our house|When will it stop]?", "scared")
    s.speak("e", "[No, {dear}|Don't worry, {dear}|Come here, {dear}]. [Thunder is only the sound "
            "of lightning|It is only a big noise|The noise can't hurt you]. [Let's find out how "
            "far away it is|I know a trick|Here is a secret]. [Count from the flash to the boom"
            "|When you see the flash, start to count]. The more you count, the farther away it is.",
            "kind")
    s.para()
    counted = "".join(f", {words.NUMBERS[i]}" for i in range(3, first + 1))
    s.tell("Flash! They counted [together|out loud]: one, two" + counted + ". BOOM!")
    if s.chance(0.6):
        s.speak("h", "{n1}. [Is that close|Is that far]?", "scared")
        s.speak("e", "[Quite close|Not so far]. [But wait|Now listen|Count again].", "kind")
    s.tell("[To pass the time|Meanwhile|While they waited], {game}. [The next flash"
           "|Another flash] came, and this time {h} counted to {n2} before the boom.")
    s.speak("h", "{n2}! [It's going away|The storm is leaving|It's farther away now]!", "happy")
    s.tell("[At the third flash|Later], there was almost no sound [at all"
           "|left], only the rain on the roof.")
    s.para()
    s.one(
        "When the next storm came, {h} [did not hide|sat at the window] and counted.",
        "{soon} the sun came out, and there was a rainbow. {h} [ran out to jump in the puddles"
        "|counted its colors].",
        "{h} fell asleep to the [soft|quiet] rain, [still counting|with a smile].",
    )
    s.close("[a thing you can count is not so scary|a storm always goes away"
            "|it is easier to be brave when you understand]", where="bed")


def a_race(s: Story) -> None:
    """The fast one and the steady one; a stop, a fall or a nap decides, and somebody is kind."""
    s.friends(traits=("fast", "lively", "proud", "playful"),
              friend_traits=("slow", "patient", "careful", "steady"))
    s.let(goal="the old oak tree|the red barn|the bridge|the big rock|the mill|the well"
          "|the top of the hill",
          prize="blue ribbon|honey cake|wooden cup|basket of plums|paper crown|round cheese",
          stop="to pick berries|to drink from the stream|to chase a butterfly"
          "|to wave to some friends|to take a little nap in the sun")
    s.open(friend=True, keepsake=False)
    s.today("there was a race to {goal}. The prize was a {prize}.")
    s.speak("h", "[I will win easily|Nobody can catch me|I could win with my eyes closed]!",
            "proud")
    s.speak("f", "[I'll just do my best|Maybe you will, but I'll try too"
            "|We shall see]. [Step by step gets there too|I like running anyway].", "plain")
    s.para()
    s.tell("Ready, set, go! {h} [shot off like an arrow|was far ahead at once"
           "|flew down the path]. {f} [ran at {f.his} own pace|went steadily|did not hurry].")
    ending = s.pick("nap|fall|both")
    if ending == "nap":
        s.tell("[Halfway there|In the middle of the way], {h} looked back. Nobody was near. {h.he} "
               "stopped {stop}.")
        s.tell("{h.he} [forgot the time|stayed too long]. {f} came [step by step"
               "|slowly but surely] and passed without a sound.")
        s.tell("When {h} [looked up|remembered the race], {f} was [almost at"
               "|just a few steps from] {goal}. {h} ran and ran, but it was too late.")
        s.speak("f", "[I did it|I made it|Step by step]!", "happy")
        s.tell("{f} won the {prize}, and {h} [came second|was the first to clap"
               "|had to laugh at {h.himself}].")
        s.close("[slow and steady gets there|a race is not won in the middle"
                "|it is not enough to be fast]", where="")
    elif ending == "fall":
        s.tell("[Near|Close to] {goal}, {h} [tripped over a root|slipped on wet leaves"
               "|stepped into a hole] and fell. {h.he} [held {h.his} knee|could not get up"
               "|cried out].")
        s.tell("{f} [came running up|reached the place]. {f.he} [could run past and win"
               "|saw that the way was free]. But {f.he} stopped.")
        s.speak("f", "[Are you hurt|Can you stand|Does it hurt much]? [Lean on me|Take my arm"
                "|Put your arm around me].", "kind")
        s.speak("h", "[But then you won't win|But the prize|You could have won]!", "plain")
        s.speak("f", "[It's no fun to win alone|A friend is better than a prize"
                "|There will be other races].", "kind")
        s.tell("So they [walked|limped] to {goal} side by side, [last of all"
               "|long after the others]. Everyone clapped, and they [shared the {prize}"
               "|were both called winners].")
        s.close("[helping is worth more than winning|nobody remembers who was first, but everybody "
                "remembers who was kind]", where="")
    else:
        s.tell("{f} [breathed in, breathed out|hummed a little song"
               "|counted {f.his} steps]. {h} [began too fast|was soon out of breath"
               "|had to slow down].")
        s.tell("Before the last turn they were side by side. They looked at each other and [laughed"
               "|grinned]. {h} held out {h.his} {h.hand}.")
        s.speak("h", "[Shall we finish together|Together]?", "happy")
        s.speak("f", "[Together|Yes, together]!", "happy")
        s.tell("They reached {goal} at the very same moment and [had to share the {prize}"
               "|won the {prize} together].")
        s.close("[it is nice to win, but nicer to win together|the best races have two winners]",
                where="")


def planting_a_seed(s: Story) -> None:
    """A seed and waiting: impatience, a danger for the plant, a harvest of what was sown."""
    s.hero(traits=("curious", "busy", "lively", "playful", "patient", "cheerful"))
    s.elder()
    s.hero("f")
    crop, seed, fruit, size = s.pick([
        ("sunflower", "striped seed", "flower as yellow as the sun", "taller than {e}"),
        ("pumpkin", "flat white seed", "round orange pumpkin", "as big as a chair"),
        ("bean plant", "spotted bean", "row of long green beans", "higher than the fence"),
        ("tomato plant", "tiny seed", "ripe red tomato", "up to {h.his} chin"),
        ("apple tree", "small brown seed", "first green leaf", "as tall as {h.his} knee"),
        ("strawberry plant", "very small seed", "sweet red strawberry", "as wide as a plate"),
        ("carrot", "thin seed", "long orange carrot", "as long as {h.his} arm"),
        ("rose bush", "dry little seed", "pink rose", "up to {h.his} nose"),
    ])
    s.roles |= {"crop": crop, "seed": seed, "fruit": fruit, "size": size}
    s.let(days="three|five|six|ten",
          pest="a snail|three hungry snails|a fat caterpillar|a crow|a goat")
    s.open()
    s.one("{e} gave {h} a {seed}.", "In an old [jar|box|pocket], {h} found a {seed}.",
          "{h} got a {seed} from {e}, [wrapped in paper|in a tiny bag].")
    s.speak("h", "[What will it be|What is in it|What can it do]?", "plain")
    s.speak("e", "[A {crop}, if you take care of it|Inside sleeps a {crop}"
            "|Wait and see]. [It needs earth, water and time|Give it water, sun and time].", "wise")
    s.para()
    s.today("{h} [dug a small hole|made a hole with one finger"
            "|filled a pot with earth], put the seed in and [covered it"
            "|patted the earth] {carefully}.", skies="sunny|cloudy")
    s.one(
        "{h.he} looked [every morning and every evening|five times a day"
        "|before breakfast]. [Nothing|Only brown earth|Not a thing to see].",
        "For {days} days [nothing happened|there was nothing to see].",
    )
    impatient = s.chance(0.5)
    if impatient:
        s.speak("h", "[It's broken|It doesn't work|I'll dig it up and look]!", "cross")
        s.speak("e", "[Don't|Oh no, don't]! [A seed works in the dark, where nobody can see"
                "|It is busy making roots|You can't hurry a seed].", "kind")
        s.tell("So {h} waited {days} days more. [It was hard|That felt like a year"
               "|{h.he} sang to it].")
    s.tell("Then, one morning, [a green tip looked out of the earth|there was a tiny green leaf"
           "|something green was there].")
    s.speak("h", "{wow}! [It's alive|It's growing|Come and see]!", "excited")
    s.para()
    if s.chance(0.5):
        s.tell("But one day {pest} [came to eat the leaves|bit into a leaf"
               "|wanted the plant for lunch]. {h} [shouted and waved {h.his} arms"
               "|clapped {h.his} {h.hands} until the coast was clear"
               "|stood guard all day], and {f.full} helped to build a little fence.")
    else:
        s.tell("Then came [hot weeks without rain|a dry time]. {h} carried water from the well "
               "[every day|in a small can|cup by cup], and {f.full} [helped"
               "|carried the second bucket].")
    s.tell("The plant grew and grew until it was {size}. And {atlast} there it was: a {fruit}!")
    is_food = not any(word in fruit for word in ("flower", "rose", "leaf"))
    s.one(
        "{h} and {f} [looked at it for a long time|danced around it].",
        "{h} showed it to [everyone|the whole neighborhood].",
        "{h} gave half of it to {f}, because {f.he} had helped." if is_food else
        "{f} said it was the most beautiful thing {f.he} had ever seen.",
    )
    s.maybe(0.6, "In {h.his} pocket was already the next seed.",
            "{h} saved [the seeds|some seeds] for next spring.")
    s.close("[good things need time|waiting is also work|a small seed can hold a big surprise]",
            where="")


def kite(s: Story) -> None:
    """A kite in the wind, caught in a tree; three ways to bring it down."""
    s.friends(robots=True)
    s.thing("t", ["kite"])
    s.let(tail="a long tail of ribbons|a tail with paper bows|two tails|a painted face"
          "|a picture of the sun on it")
    s.open(friend=True)
    s.one("{h} had made {t.a} with {tail}.", "For {h.his} birthday {h} had got {t.a} with {tail}.",
          "{h} and {f} had worked all week on {t.a} with {tail}.")
    s.today("they [took|carried] it to the [meadow|hill|beach]. {h} ran, {f} let go, and up it "
            "went!", skies="windy", hours="morning|afternoon")
    s.speak("f", "~[Higher! Higher|Look how high it is|It looks like a bird]!", "excited")
    s.tell("Then [a strong gust came|the wind turned]. The string [slipped from {h.his} {h.hand}"
           "|broke], and the kite flew [away over the trees|off] and got stuck [at the top of a "
           "tall tree|in a high branch].")
    s.speak("h", "[{oh}|My kite]! [Now it's gone.|It's too high.|How will we ever get it down?]",
            "sad")
    s.para()
    s.tell("~First {h} [jumped as high as {h.he} could|threw a stick"
           "|shook the tree]. [It did not help|Only leaves came down|The kite did not move].")
    if s.chance(0.33):
        s.neighbor()
        s.tell("{n} [came by with a ladder|saw them and fetched a ladder]. {f} held it, and {n} "
               "climbed up [slowly|step by step].")
        s.speak("n",
                "[Here comes your kite|Got it|Catch]! [Hold it tight next time|It is a fine kite].",
                "kind")
    elif s.chance(0.5):
        s.speak("f", "[What if we wait for the wind?|The wind took it, so maybe the wind will "
                "bring it back.]", "plain")
        s.tell("They sat down under the tree and waited. They [ate an apple|told stories"
               "|counted clouds]. {suddenly} a new gust came, and the kite [lifted"
               "|came loose], turned twice and landed [right at their feet|softly in the grass].")
    else:
        s.tell("{f} tied a stone to a long string and threw it over the branch. Together they "
               "pulled [down on it|until the branch bent], and the kite [slid down|came loose].")
        s.speak("f", "[That's it|We did it]!", "happy")
    s.maybe(0.6, "The kite had a [small |little |]hole, but {h} [put a patch on it"
            "|mended it with paper].",
            "Only [one ribbon|the tail] was torn, and that was easy to mend.",
            "The {t.full} was as good as new.")
    s.tell("{soon} it was flying again, and this time they held the string [together|very tight"
           "|with all their might].")
    s.close("[two heads have more ideas than one|there is more than one way out of a tree]",
            where="home")


def paper_boat(s: Story) -> None:
    """A little boat goes down the stream; something stops it; it is found far off or comes home."""
    s.friends()
    s.let(stuff="a walnut shell|a piece of bark|a folded newspaper|an old shoe|half a coconut"
          "|a wooden box",
          sail="a leaf|a feather|a red cloth|a page from a notebook|a blue handkerchief",
          crew="a ladybug|a tiny doll|an acorn|a brave beetle|a pebble with a painted face",
          name="Sea Star|Brave Bean|Little Wave|Wind Runner|Blue Duck|Lucky Leaf")
    s.open(friend=True)
    s.today("{h} built a boat from {stuff}. For a sail {h.he} took {sail}, and the captain was "
            "{crew}.", skies="sunny|windy")
    s.speak("f", "[What is its name|What is it called|Does it have a name]?", "plain")
    s.speak("h", "The {name}! [It will sail to the sea|It will go around the world"
            "|It's the fastest boat on the river].", "proud")
    s.para()
    s.tell("They [put it in the stream|set it on the water] and ran along the bank. The boat "
           "[danced over the little waves|went around a stone|turned in a circle and sailed on].")
    s.let(snag="got caught in the reeds|got stuck between two stones|was stopped by a fallen branch"
          "|ran into a beaver dam")
    s.tell("Then it {snag}.")
    s.speak("f", "[The {name} is in danger|Save the captain|Quick, before it sinks]!", "excited")
    if s.chance(0.5):
        s.tell("{h} took a long stick, lay down on {h.his} tummy and [pushed"
               "|reached]. {f} held {h.his} feet. [Almost|A little more]... and the boat was free.")
    else:
        s.tell("They threw [pebbles|small stones] into the water, one after another, until the "
               "waves [rocked the boat free|pushed the boat out].")
    s.para()
    if s.chance(0.5):
        s.tell("The {name} sailed on, faster and faster, [under the bridge"
               "|around the bend] and out of sight. They waved [until their arms were tired"
               "|for a long time].")
        s.speak("h", "[Will we see it again|Do you think it will reach the sea]?", "sad")
        s.speak("f", "[Maybe somebody will find it and smile|It wanted to travel"
                "|Boats are made for going].", "kind")
        s.tell("A [week|month] later a letter came from [a town by the sea"
               "|far down the river]. \"We found a boat with {sail} for a sail,\" it said. "
               "\"{crew} is well.\"")
    else:
        s.tell("At the old bridge, {f} ran ahead and caught it [with a net|in a bucket"
               "|with a long stick].")
        s.speak("h", "[Welcome home, captain|What a trip]!", "happy")
        s.tell("That night the {name} stood on {h.his} window sill, [still a little wet"
               "|with {sail} as its sail], and {crew} [slept in it|kept watch].")
    s.close("", where="home" if s.chance(0.5) else "")


def snow_day(s: Story) -> None:
    """Something is built of snow and dressed; it melts, and each borrowed thing goes back."""
    s.friends()
    s.thing("a", "hat|cap")
    s.thing("b", "scarf|shawl")
    s.let(what="snowman|snow bear|snow rabbit|snow king|snow cat|snow dragon",
          eyes="two [black|gray] stones|two buttons|two walnuts|two lumps of coal",
          nose="carrot|pinecone|red apple|twig|potato",
          name="Mr. Frost|Cold Carl|Big Bob|Sir Snow|Old Winter")
    s.open(friend=True, keepsake=False)
    s.today("{h} looked out and saw snow, [deep and soft|everywhere|more than ever before].",
            skies="snowy", hours="morning")
    s.speak("h",
            "[Come out, {f}|{f}, wake up|{f}, look]! [Let's build a {what}|We can make a {what}]!",
            "excited")
    s.tell("They rolled [one big ball|a ball as big as a barrel] and [one small ball"
           "|a smaller one]. {f} found {eyes} for the eyes, and {h} brought a {nose} for the nose.")
    s.tell("{h} [gave|lent] it {h.his} own {a.full}, and {f} put {f.his} {b.full} around its neck. "
           "They called it {name}.")
    if s.chance(0.6):
        s.speak("f", "[Aren't you cold without your {a}|Won't your ears freeze], {h}?", "kind")
        s.speak("h", "[A little|Not very]. [But {name} looks so grand|It is only for today].",
                "happy")
    s.para()
    if s.chance(0.5):
        s.tell("For [three|four|five|seven] days {name} [stood in the yard"
               "|watched over the house], and everyone who passed [said good morning|smiled"
               "|bowed].")
    else:
        s.tell("That night it snowed again. In the morning {name} wore a second, white {a} on top "
               "of the {a.color} one.")
    s.tell("Then the [sun grew warm|wind turned warm|first warm day came]. {name} got [thinner and "
           "thinner|smaller every hour|a crooked smile]. By evening there was only a [puddle"
           "|heap of wet snow] with {eyes} in it.")
    s.speak("f", "~[Goodbye, {name}|I miss {name}|Poor {name}].", "sad")
    if s.chance(0.5):
        s.speak("h", "[Next winter, we'll build {name} again|Water turns to clouds, and clouds "
                "turn to snow]. [Wait and see|So {name} will come back].", "kind")
    s.tell("{h} put on {h.his} {a.full} again, {f} [got back"
           "|shook out] {f.his} {b.full}, and [the birds|a hungry bird|the wind] took the {nose}.")
    s.close("[some things are lovely because they do not last|what melts can come again]", where="")


def lost_in_the_woods(s: Story) -> None:
    """Three landmarks on the way out; on the way home they come in the opposite order."""
    s.friends(traits=("curious", "brave", "lively", "careful", "thoughtful"), robots=True)
    marks = s.sample(
        "a tree with a hole like a mouth|a rock shaped like a loaf of bread"
        "|a bridge made of one log|a bush full of red berries|a stump with seven mushrooms"
        "|a small waterfall|a scarecrow with a blue hat|a nest in a low branch|an old wagon wheel"
        "|a pond with one white duck|a gate with no fence|a heap of round stones", 3)
    for i, mark in enumerate(marks):
        s.roles |= {f"m{i}": mark, f"the{i}": the(mark)}
    s.let(goal="mushrooms|blueberries|pinecones|firewood|flowers|feathers")
    s.open(friend=True)
    s.today("they went into the forest to look for {goal}.", skies="sunny|cloudy",
            hours="day|afternoon")
    s.tell("First they passed {m0}. {then} they came to {m1}. [A little farther on"
           "|Deep in the forest], they saw {m2}.")
    s.tell("[They filled their basket|They found more and more {goal}"
           "|They talked and picked {goal}] and did not [look at the sun|watch the path]. [Then"
           "|And so] it [was getting dark|grew late].")
    s.speak("f", "[Which way is home?|Where are we?|I think we're lost.] [All the trees look the "
            "same|I don't know this path].", "scared")
    s.one("{h.his} heart beat fast, too. But {h.he} [sat down to think|took a deep breath].",
          "{h} was [a little |]{scared} too, but {h.he} thought hard.")
    s.speak("h", "[Do you remember what we saw?|Let's think about what we passed.] [The last thing "
            "was {the2}|Last came {the2}], so now it must come first.", "plain")
    s.para()
    s.tell("They looked around and [found|saw] {the2} [between the trees"
           "|behind them]. From there, {f} [spotted|remembered the way to] {the1}.")
    if s.chance(0.5):
        s.speak("f", "[And after that|Now there is only one left]: {the0}!", "excited")
    s.maybe(0.5,
            "An owl called. They held on to each other and [sang to feel brave|walked faster].")
    s.tell("{atlast}, there was {the0}, and behind it [they could see the lights of home"
           "|a light was shining|they smelled supper].")
    if s.chance(0.6):
        s.elder()
        s.tell("{e} [was standing at the door|came to meet them with a lantern|hugged them both].")
        s.speak("e", "[How did you find the way|How did you get home in the dark]?", "kind")
        s.speak("h", "[Backward|We went backward]! {the2}, {the1}, {the0}, home.", "proud")
    s.close("[who looks well on the way out finds the way back|it is better to think than to run]",
            where="home")


def rescue(s: Story) -> None:
    """A small creature is in trouble; the first try fails, the second fits the trouble."""
    s.hero(traits=("kind", "gentle", "brave", "quiet", "careful", "thoughtful"))
    s.elder()
    who, sound, trouble, first, second, thanks = s.pick([
        ("kitten", "meow", "sat high up in a tree and did not dare to come down",
         "called and called, but the {who} only cried louder",
         "{e} held the ladder, and {h} climbed up with a basket", "purred like a tiny engine"),
        ("baby bird", "peep", "had fallen out of its nest",
         "looked for its mother, but she was nowhere near",
         "{e} lifted {h} up, and {h.he} put it back into the nest", "opened its beak and peeped"),
        ("duckling", "quack", "was stuck in deep mud",
         "stepped closer, but the mud pulled at {h.his} feet",
         "{h} lay down on a board and pulled it out", "shook its wings and ran to its mother"),
        ("bee", "buzz", "had fallen into a puddle and could not fly",
         "blew on the water, but that only made waves",
         "{h} held out a leaf, and the bee climbed on",
         "dried its wings and flew one circle around {h.him}"),
        ("lamb", "baa", "was caught in the fence", "pulled at the fence, but it was too strong",
         "{e} bent the wire while {h} held the {who} still", "jumped up and ran across the field"),
        ("fish", "splash", "lay in a tiny pool that the tide had left behind",
         "carried water in {h.his} {h.hands}, but it ran through",
         "{h} caught it in a bucket and brought it back to the sea",
         "flashed its tail and was gone"),
        ("hedgehog baby", "squeak", "had rolled into a deep hole",
         "reached down, but {h.his} arm was too short",
         "{h} slid a branch into the hole like a little ramp", "walked up, sniffed and sneezed"),
        ("turtle", "thump", "lay on its back with its legs in the air",
         "pushed, but it was too heavy",
         "{e} pushed from one side and {h} from the other",
         "stretched its neck and blinked slowly"),
    ])
    s.roles |= {"who": who, "trouble": trouble, "first": first, "second": second, "thanks_": thanks,
                "sound": sound}
    near = {"fish": "the beach", "duckling": "the pond|the lake|the river",
            "lamb": "the farm|the meadow"}
    s.place("p", near.get(who, "the garden|the park|the orchard|the meadow"))
    s.open()
    s.today("{h} [was {p.at}|was walking {p.at}|was playing {p.at}] when {h.he} heard a [strange"
            "|small|sad] sound.", skies="sunny|cloudy|windy")
    s.tell('"{sound}, {sound}!" It was a {who}. It {trouble}.')
    s.speak("h", "[Don't be afraid|Hold on|Poor little thing]! [I'll help you"
            "|I will get you out of there].", "kind")
    s.tell("{h} {first}. [That did not work|It was no use|That was not the way].")
    s.para()
    if "{e}" in second:
        s.tell("{h} {ran} [home|off] to get {e}.")
        s.speak("h", "[Come quickly|Please help]! A {who} {trouble}!", "excited")
        s.tell("{e} [came at once|put on {e.his} shoes and came|did not ask twice]. {second}.")
    else:
        s.tell("{h} [looked around|thought hard|sat down and thought]. Then {h.he} had an idea. "
               "{second}.")
    s.maybe(0.6,
            "[It took a while|It was not easy|It had to be done slowly], but then all was well.",
            "It worked!", "{h} held {h.his} breath. It worked.")
    s.tell("The {who} {thanks_}.")
    s.para()
    s.one(
        "The next day {h} [came back to look|went there again]. All was [well"
        "|quiet], and {h.he} [was {glad}|smiled].",
        "[Often|Many times] after that, {h} thought of the little {who} and [smiled"
        "|wondered where it was].",
        "{h} [told the story at supper|drew a picture of the {who}"
        "|could still hear that sound in {h.his} dreams].",
    )
    if "{e}" in second and s.chance(0.5):
        s.speak("e", "[You listened, and that was the first step|You heard a very small voice"
                "|You did well to ask for help].", "proud")
    s.close("[even the smallest voice should be heard|to help, you must first look closely"
            "|the first try is not always the right one]", where="home")


def picnic_in_the_rain(s: Story) -> None:
    """A picnic, a cloud, and a new plan that turns out better."""
    s.friends()
    s.let(bring1="bread and cheese|pancakes with honey|ripe plums|egg sandwiches|corn bread",
          bring2="berry cake|sweet carrots|nuts|melon|cherries")
    s.place("p", "the meadow|the hill|the lake|the river|the park")
    s.roles["shelter"], s.roles["inside"] = s.pick([
        ("an old barn", "in the old barn"), ("a dry cave", "in the cave"),
        ("a big tree", "under the big tree"),
        ("a hay wagon", "under the wagon"), ("a wooden bridge", "under the bridge"),
        ("a little hut", "in the hut"),
    ])
    s.let(game="guessed which drop would be first to the bottom|told the silliest stories they knew"
          "|made music on cups and plates|counted the seconds between the drops"
          "|pretended the rain was the sea")
    s.open(friend=True)
    s.today("they [packed a basket|planned a picnic] {p.at}. {h} brought {bring1}, and {f} brought "
            "{bring2}.", skies="sunny", hours="morning|day")
    s.tell("They [spread out the blanket|found the best spot"
           "|sat down in the grass]. But [a dark cloud came up|the wind turned cold"
           "|a big drop fell on {h.his} nose].")
    s.speak("f", "[Was that rain|Did you feel that|Is it going to rain]?", "plain")
    s.tell("[Plip, plop|Drip, drip], and then it poured. They [grabbed"
           "|picked up] everything and {ran} to {shelter}.")
    s.speak("h", "[Now our picnic is spoiled|Everything is wet|This is a bad day]. [I wish we had "
            "stayed home|The blanket is soaked].", "sad")
    if s.chance(0.6):
        s.speak("f", "[Who says so|Why]? [We have a roof now|It's dry in here"
                "|Our lunch tastes just as good in here]. [Listen to that sound|Let's eat].",
                "happy")
    else:
        s.tell("{f} [looked around|listened to the rain] and began to smile.")
        s.speak("f",
                "[Let's pretend this is our house|Let's have the first rain picnic in the world]!",
                "excited")
    s.para()
    s.tell("So they sat {inside}, shared the {bring1} and the {bring2}, and {game}.")
    if s.chance(0.4):
        s.neighbor()
        s.tell("{n} came running in, [wet to the skin|dripping wet], and they [made room"
               "|moved over] and gave {n.him} some of the {bring1}.")
        s.speak("n", "[What luck|How nice]! [I lost my hat, but I found a picnic"
                "|This is the best rain I ever ran into].", "happy")
    s.tell("~When the rain stopped, [there was a rainbow|the whole world smelled fresh"
           "|drops hung on every leaf like glass]. [Nobody wanted to go home"
           "|They were almost sorry].")
    s.speak("h", "[Next time, let's hope it rains|That was better than a dry picnic"
            "|I hope it rains again]!", "happy")
    s.close("[bad weather can make a good day|a changed plan can be a better plan]", where="home")


def sand_castle(s: Story) -> None:
    """A castle, a wave, and the reason why the second one stands."""
    s.friends(robots=False)
    s.let(top="a white feather|a red flag|a round shell|a piece of green glass"
          "|a crab's empty shell", count="two|three|four|five")
    s.open(friend=True, keepsake=False)
    s.today("{h} and {f} [built|worked on] a sand castle at the beach. It had {count} towers and "
            "{top} on top.", skies="sunny")
    s.speak("h", "[This is where the queen lives|It's the biggest castle ever"
            "|Nobody has a castle like this]!", "proud")
    s.tell("But the sea [came closer|crept up the beach]. A wave [rolled in"
           "|ran up], and [half of the castle was gone|the towers fell down"
           "|swish, everything was flat].")
    s.speak("h", "~[Bad|Mean|Greedy] sea!", "cross")
    s.tell("{h} [kicked the sand|wanted to go home|began to cry]. {f} [looked at the water for a "
           "while|thought about it].")
    s.speak("f", "[The sea is not mean|The sea comes every day]. [We built in the wrong place"
            "|We were too close]. [Look at the dark line|Where the sand is dry, the water does not "
            "come].", "wise")
    s.para()
    s.tell("So they [went up|moved], past the dark line, and began again. {f} [dug a ditch"
           "|made a wall of stones], and {h} carried [wet sand|bucket after bucket].")
    s.tell("It took [all afternoon|a long time]. [The new castle had {count} towers again"
           "|The new castle was even bigger], and {top} was on top again.")
    s.tell("The next wave came. It came up to the line, [turned around|sighed"
           "|thought about it] and went back.")
    s.speak("h", "[Ha! It stands|The queen is safe|We won]!", "happy")
    s.one("In the evening the castle was still there, golden in the last light.",
          "They went home with sand [between their toes|in their ears|in every pocket].",
          "A small crab moved in. That was the queen.")
    s.close("[it matters where you build|you cannot stop the sea, but you can learn its ways"
            "|a second try knows more than the first]", where="")


FRAMES = (
    lost_and_found, the_storm, a_race, planting_a_seed, kite, paper_boat, snow_day,
    lost_in_the_woods, rescue, picnic_in_the_rain, sand_castle,
)
