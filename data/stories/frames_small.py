"""Small plots of one scene: a tooth, the moon, a balloon, footprints, two bags that look alike."""

from stories import words
from stories.story import Story, the


def the_tooth(s: Story) -> None:
    """A loose tooth; three ways to get it out; where it went."""
    s.hero()
    s.elder()
    s.let(food="apple|carrot|crust of bread|nut bar|pear", under="pillow|cup|blanket|big shell")
    s.thing("t", "coin|marble|ribbon|pencil|bead|stamp", words.COLORS)
    s.open(keepsake=False)
    s.tell("{h} had a loose tooth. It [wobbled|moved back and forth"
           "|hung by a thread], but it [would not come out|did not fall].")
    s.today("{h} [pushed it with {h.his} tongue|wiggled it with one finger"
            "|showed it to everyone {h.he} met].")
    s.speak("h", "[Will it hurt|When will it come out|What if I swallow it]?", "scared")
    s.speak("e", "[It will come out when it is ready|Only a little, like a pinch"
            "|Don't worry about it]. [Eat your lunch|Have a bite of this {food}"
            "|Let's eat something first].", "kind")
    if s.chance(0.5):
        s.tell("{h} bit into the {food}. [Crack|Pop]! There was the tooth, [stuck in the {food}"
               "|as small as a grain of rice].")
    else:
        s.tell("{h} [sneezed|laughed at a joke|jumped off a step], and [pop"
               "|out] it flew, right [under the table|into the soup|into {e.his} lap].")
    s.speak("h", "[Look|It's out]! [It didn't hurt at all|Now I can whistle through the hole"
            "|I have a window in my mouth]!", "proud")
    s.tell("That night {h} put the tooth under {h.his} {under}. In the morning the tooth was gone, "
           "and in its place lay {t.a}.")
    s.close("[most things hurt less than you think|things come when they are ready]", where="")


def the_moon_follows(s: Story) -> None:
    """The moon comes along on the way home; why, and what one says to it."""
    s.hero(traits="curious|dreamy|quiet|clever|gentle|thoughtful")
    s.elder()
    s.let(frm="the fair|a visit|the harvest party|Grandma's house|the lake|the market",
          behind="the tower|the tall tree|the barn|the hill|the old mill|the chimney")
    s.open(keepsake=False)
    s.tell("It was late. {h} and {e} were [walking|riding|driving] home from {frm}. The moon was "
           "[round and white|thin as a fingernail|big and yellow], just over {behind}.")
    s.speak("h", "[The moon is following us|It walks when we walk|Look, it comes along]!",
            "excited")
    s.tell("{h} [ran|walked fast]. The moon came, too. {h} [stopped|stood still]. The moon [stopped"
           "|stood still]. It [slipped|went] behind {behind} and came out on the other side.")
    s.speak("h", "[Why does it follow us|Does it want to come home with us|Is it lonely], {e}?",
            "plain")
    s.speak("e", "[It is so far away that it looks the same from everywhere"
            "|It is so big and so far that you can't walk past it]. [Your friends think it follows "
            "them|Everyone thinks that it walks with them].", "wise")
    s.tell("{h} thought about [that|all the others who were walking home that night]. [It was nice "
           "to share a moon|One moon, and enough for all|It was a good thought].")
    s.one(
        'At the door {h} turned around. "Good night," {h.he} said. "You can rest now."',
        "In bed {h} [opened the curtain|pulled the curtain aside]. There it was, [waiting"
        "|in the window].",
        "{h} left {h.his} window open a little, so that the moon [could look in"
        "|would not feel alone].",
    )
    s.close("[there are things that belong to everyone]", where="bed")


def the_balloon(s: Story) -> None:
    """A balloon is let go by accident or on purpose; what comes after the tears."""
    s.friends()
    s.thing("t", ["balloon"])
    s.let(seen="over the church|over the roofs|over the river|past a surprised crow"
          "|higher than the tallest tree",
          name="Bobo|Mister Round|Puff|Sir Up|Bubble")
    s.open(pocket=False)
    s.today("{h} got {t.a} [at the fair|from a clown|at a party"
            "|in the market]. {h.he} drew a face on it and called it {name}.")
    s.tell("{name} [bobbed|danced|nodded] at the end of its string. {h} showed {f.full} how it "
           "could [bow|nod|fly].")
    s.one("But the knot came open.", "But then {h} [sneezed|waved to somebody] and let go.",
          "A gust of wind pulled the string out of {h.his} {h.hand}.")
    s.tell("Up it went, {seen}, smaller and smaller, until it was [a dot|only a {t.color} speck"
           "|gone].")
    s.speak("h", "[Come back|{name}, come back|Oh, {name}]! [Now it is all alone"
            "|I only had it for an hour|It can't find the way home].", "sad")
    s.speak("f", "[Maybe it is going on a trip|I think it wanted to see the world"
            "|Think of all it can see up there]. [What do you think it sees now"
            "|Where do you think it will land]?", "kind")
    s.tell("{h} [wiped {h.his} eyes|sniffed|looked up]. [Mountains, perhaps|The sea"
           "|Maybe whales]. [A ship with white sails|A goat on a rock"
           "|Another balloon]. They sat in the grass and told the trip of {name}, [taking turns"
           "|one sentence each], until supper.")
    s.one("It was a better story than any balloon.",
          "At the end of it, {name} had [a hat and a boat|a house on an island|seen every king].",
          "\"And then it sent us a postcard,\" said {h}, and laughed.")
    s.close("[what flies away can leave a story behind|a good friend can turn a loss into a story]",
            where="home")


def footprints(s: Story) -> None:
    """Tracks lead somewhere; a guess at each change; the maker of the tracks."""
    s.friends(traits="curious|brave|clever|lively|careful")
    maker, end, why = s.pick([
        ("a goose", "a nest with four eggs", "She hissed, and they went away on tiptoe"),
        ("a fox", "a hole under a root", "Two bright eyes looked out and were gone"),
        ("a hedgehog", "a heap of leaves that snored", "They did not wake it"),
        ("the mailman", "a letter on the doorstep", "It was for {h}"),
        ("a goat", "the garden, where no cabbage was left", "The goat was still chewing"),
        ("{f}", "the very place where they had started", "They had walked in a circle"),
        ("a cat", "a box with three kittens in it", "The mother cat let them look, but not touch"),
        ("a duck", "the pond, with a row of tiny ducks on it", "They counted seven"),
    ])
    s.roles |= {"maker": maker, "end": end, "why": why}
    s.let(g1="a dragon|a giant chicken|a pirate with one boot|a wolf|a king|a monster",
          stuff="mud|sand|snow")
    s.open(friend=True, pocket=False)
    s.today("they found strange [tracks|footprints] in the {stuff}.",
            skies="snowy" if s.roles["stuff"] == "snow" else "cloudy|sunny|windy", hours="morning")
    s.speak("f", "[Who made these|What could have made them|Who walked here]?", "plain")
    s.speak("h", "[I think it was|It looks like|That was surely] {g1}! [Let's follow them|Come on"
            "|We have to find out].", "excited")
    s.tell("The tracks went [around the well|past the woodpile|along the wall], [under a fence"
           "|over a log|through a hedge] and [down to the stream|up the little hill"
           "|across the yard].")
    s.maybe(0.5, "Once they lost them. {f} [bent down|looked closely] and found one more, [half "
            "hidden by a leaf|next to a stone].",
            "In one place the tracks went around and around. \"It was thinking,\" {h} whispered.")
    s.speak("f", "[What if it bites|Should we turn back|Do you hear something]?", "scared")
    s.tell("They crept on, [on tiptoe|side by side|very slowly]. The tracks ended at {end}. So it "
           "had been {maker}! {why}.")
    s.one("They laughed about {g1} all the way home.", "\"So much for {g1},\" said {f}.",
          "{h} was a little sad that it was not {g1}, but only a little.")
    s.close("[every track has somebody at the end of it|who follows to the end finds out]",
            where="home")


def the_same_bag(s: Story) -> None:
    """Two bags look the same and are swapped; what is inside tells whose it is."""
    s.hero()
    s.neighbor()
    s.thing("t", "bag|basket|suitcase|box")
    mine, theirs, need = s.pick([
        ("{h.his} pajamas and a book", "a hammer and a box of nails",
         "mend the roof before the rain"),
        ("a sandwich and two plums", "a fiddle", "play at a wedding"),
        ("five crayons and a drawing", "a pot of blue paint and a brush", "paint a boat"),
        ("a towel and a swimsuit", "twelve fresh eggs", "bake a cake for the whole street"),
        ("a doll and her three hats", "a pile of letters", "bring the mail to everyone"),
        ("a ball and a sweater", "needles and red yarn", "finish a scarf by night"),
    ])
    s.roles |= {"mine": mine, "theirs": theirs, "need": need}
    s.let(where="on the bus|at the bakery|in the waiting room|on a bench|at the market")
    s.open(keepsake=False, pocket=False)
    s.today("{h} put down {h.his} {t.full} {where} for only a minute. It held {mine}.")
    s.tell("At home {h.he} opened it. But inside {h.he} found {theirs}!")
    s.speak("h", "[This isn't mine|That is not my {t}|These are not my things]! [Somebody has my "
            "{t}|Two of them looked the same].", "plain")
    s.tell("{h} [thought|sat down to think]. Who would carry {theirs}? Somebody who wanted to "
           "{need}, of course. {h.he} {ran} back.")
    s.tell("There stood {n}, [looking very puzzled|scratching {n.his} head], with a {t.full} in "
           "one {n.hand}.")
    s.speak("n", "[I can't use these|These are not mine|This is no help to me]! [I have to"
            "|I wanted to|I should] {need}.", "sad")
    s.speak("h", "[I think this is yours|Here is your {t}|We swapped by accident]!", "happy")
    s.tell("They [opened both and looked|swapped back] and [laughed"
           "|had to laugh]. {n} [thanked {h} twice|shook {h.his} {h.hand}].")
    s.one("The next day {h} tied a [ribbon|string|button] to {h.his} {t}, so that it would never "
          "happen again.", "Now {n} could {need}, and {h} was asked to come and help.",
          "That is how {h} and {n} became friends.")
    s.close("[it is good to look twice before you go|what is in a bag tells whose it is]", where="")


def breakfast_surprise(s: Story) -> None:
    """A surprise for a grown-up that makes a mess, and is loved anyway."""
    s.hero()
    s.elder()
    s.let(dish="pancakes|toast with jam|scrambled eggs|fruit salad|porridge with honey",
          flower="daisy|tulip|dandelion|rose|sprig of mint",
          oops="the milk boiled over|an egg rolled off the table|the flour bag fell over"
          "|the toast turned black|the honey ran down the chair|the pan began to smoke")
    s.open(keepsake=False)
    s.tell("[It was {e.his} birthday|{e} had worked late every night"
           "|It was Sunday, and {e} was still asleep]. {h} [tiptoed into the kitchen"
           "|got up before the sun|put on an apron].")
    s.speak("h", "[I'll make {dish}|This will be a surprise]! [Nobody must hear me"
            "|All alone, with no help]!", "excited")
    s.tell("[At first all went well|It began well]. {then} {oops}. {h} [tried to wipe it up"
           "|put a towel over it], but that [made it worse|only spread it around].")
    s.tell("[Still|All the same], {h} put {dish} on a tray, with a {flower} in a glass, and "
           "carried it [upstairs|to {e}], [step by step|without breathing].")
    s.speak("e", "[What is this|What smells like that|Is it morning]? [Did you do this all by "
            "yourself|Is that for me]?", "happy")
    s.speak("h", "[Yes, but please don't go into the kitchen|Yes. The kitchen is a little sticky"
            "|Yes, and the floor got some, too].", "shy")
    s.tell("{e} laughed [so hard that the bed shook|until the tray rattled]. Then {e.he} ate "
           "[every bit|everything], even the [burned|crunchy] parts.")
    s.one("Afterward they cleaned the kitchen together, and it took until noon.",
          "\"[It tastes of love|This is the best breakfast I ever had],\" said {e}, \"and a little "
          "of smoke.\"",
          "They washed the pots together, and {e} showed {h} how to do it without a mess.")
    s.close("[a surprise does not have to be perfect|love tastes good, even when it is burned]",
            where="")


def the_umbrella(s: Story) -> None:
    """An umbrella is lent to one after another, and comes back in the end."""
    s.hero(traits="kind|helpful|thoughtful|gentle|polite|sweet")
    s.thing("t", ["umbrella"])
    who = s.sample("an old goat|a mother with a baby|a wet kitten|the mailman"
                   "|a teacher with a stack of books|two tiny sisters"
                   "|a painter with a fresh picture|a baker with a cake", 2)
    s.roles |= {"w1": who[0], "w2": who[1], "the2": the(who[1])}
    s.let(goal="the library|the bus stop|school|the shop at the corner|the mill")
    s.open(keepsake=False)
    s.today("{h} walked to {goal} under {t.a}.", skies="rainy")
    s.tell("At the [corner|bridge|gate] stood {w1}, [dripping wet|without a hat|shivering].")
    s.speak("h", "[Come under|There is room for two|Take my {t}]! [I don't mind the rain"
            "|You need it more than I do|I can run].", "kind")
    s.tell("So {h} [gave away|lent] {t.the} and ran the rest of the way. {h.he} was [wet to the "
           "skin|as wet as a fish], but [somehow warm inside|not sorry].")
    s.tell("[On the way home|In the afternoon] it was still raining. {suddenly} somebody called "
           "{h.him}. It was {w2}, and above {the2} was... {t.the}!")
    s.roles["say"] = s.choose("[This was lent to me|Somebody lent me this], and now I am home. "
                              "[You are wet, so take it|Now you need it|Please pass it on]!")
    s.tell('"{say}" said {the2}.')
    s.tell("How {h} laughed! The umbrella had been all over town that day, [from one to the next"
           "|over one head after another], and had come back.")
    s.close("[what you lend with a glad heart finds its way home"
            "|kindness goes from one to the next]", where="")


def birds_in_winter(s: Story) -> None:
    """Hungry birds; who comes for which food; a thank-you in spring."""
    s.hero(traits="gentle|kind|patient|quiet|curious|thoughtful")
    s.elder()
    s.thing("b", ["bird"], "red|blue|yellow|brown|gray|black")
    s.let(food="crumbs|seeds|bits of apple|oats|sunflower seeds",
          foe="the cat next door|a big crow|a greedy squirrel|the wind",
          home_="an old shoe box|half a coconut|a milk carton|a flat basket")
    s.open(keepsake=False)
    s.today("{h} saw {b.a} on the window sill. It was [round with cold"
            "|all puffed up], and it [pecked at the ice|looked in].", skies="snowy",
            hours="morning")
    s.speak("h", "[What does it want|Is it hungry|Why doesn't it fly south], {e}?", "plain")
    s.speak("e", "[It can't find food under the snow|It stays here all winter]. [We could give it "
            "some {food}|It would like some {food}].", "kind")
    s.tell("They made a bird table from {home_} and put {food} in it. The {b.full} [came at once"
           "|waited, then came]. The next day it brought [a friend|two others|its whole family].")
    s.tell("But {foe} [was a problem|came, too|spoiled everything]. So {h} hung the table [higher"
           "|on a thin branch|under the roof], where [only small birds could get to it"
           "|it was safe].")
    s.tell("All winter {h} [filled it before breakfast|did not forget it once]. {h.he} learned [to "
           "sit still|the names of nine birds|who was bold and who was shy].")
    s.one("In spring there was a nest [over the door|in the apple tree], and in it sat the "
          "{b.full}.",
          "One warm morning {b.the} sang under the window, so loudly that everyone woke up.",
          "When the snow was gone, one {b.color} feather lay on the window sill.")
    s.close("[a little every day is a lot in the end|small guests remember]", where="")


def the_last_piece(s: Story) -> None:
    """One piece is left and two want it; one cuts, the other chooses."""
    s.friends(traits="lively|playful|clever|busy|eager")
    s.elder()
    s.let(dish="cake|pie|pizza|melon|pancake|bread with jam")
    s.open(friend=True, keepsake=False, pocket=False)
    s.today("{e} made a feast for everyone. [It was so good that soon"
            "|They ate and ate until] only one piece of {dish} was left.")
    s.speak("h", "[I want it|That one is mine|I'll take it]! [I had fewer than you|I am the oldest"
            "|I am the hungriest]!", "excited")
    s.speak("f", "[No, I want it|That's not fair]! [You had three already|I saw it first"
            "|I never get the last one]!", "cross")
    if s.chance(0.5):
        s.speak("e", "[Cut it in two|Then share it]. [But one of you cuts, and the other one "
                "chooses|One cuts, the other picks first].", "wise")
        s.tell("{h} took the knife. If one half was bigger, {f} would take it. So {h} [measured "
               "with one finger|looked from both sides|cut as slowly as a snail]. In the end [no "
               "one could say which half was bigger|both halves were the same, to the last crumb].")
        s.speak("f", "[You choose|I don't mind which one|They are the same]!", "happy")
        lesson = ("[one cuts and the other chooses, and both are content"
                  "|what is fair can be found with a clever rule]")
    else:
        s.tell("While they [argued|pulled at the plate|shouted], [the dog came in"
               "|a crow hopped onto the table|a goat looked in at the window]. A moment later "
               "there was nothing left but crumbs.")
        s.tell("{h} looked at {f}, and {f} looked at {h}. First it was [very quiet"
               "|sad]. Then both of them began to laugh.")
        s.speak("f", "[Next time we'll share it|Half would have been better than nothing"
                "|We should have cut it in two].", "plain")
        lesson = "[while two fight, a third one eats|half a piece is better than none]"
    s.close(lesson, where="")


def splash(s: Story) -> None:
    """New boots and a puddle: how deep is it?"""
    s.friends()
    s.thing("t", ["boots"])
    s.open(friend=True, keepsake=False, pocket=False)
    s.today("{h} had new {t.color} rain boots, and there were puddles [everywhere|in every street"
            "|big as lakes].", skies="rainy", hours="morning|afternoon")
    s.speak("h", "[Mine go up to my knees|Nothing can get through them"
            "|I can walk through any puddle in the world]!", "proud")
    s.tell("They jumped over [small puddles|the first one] and [into"
           "|through] big ones. {f} [threw in a stone|held a stick in] to see how deep each one "
           "was.")
    s.speak("f", "[That one goes up to the ankle|This one is fine"
            "|Only one finger deep]. [But look at the one by the gate"
            "|But the brown one has no bottom|The one over there is as deep as a bucket].", "plain")
    s.speak("h", "[No puddle is too deep for me|Watch me|I'll cross that one, too]!", "excited")
    s.tell("{h} took [two|three|four] steps. The water [came to the edge of {h.his} boots"
           "|rose and rose]. One more step, and [in it ran, cold as ice|both boots were full].")
    s.one("{h} [stood there with big eyes|made a face like a fish]. Then {h.he} laughed until "
          "{h.he} sat down, right in the middle.",
          "\"[Brrr|Oh],\" said {h}. \"Now I have two {t.color} buckets.\"",
          "{f} [held out the stick|pulled], and {h} came out, but one boot stayed behind.")
    s.tell("At home they [emptied the boots into the flower pots"
           "|hung up the socks by the stove], [drank {drink}"
           "|put their feet in warm water], and {f} drew a map of all the puddles, with their "
           "depths.")
    s.close("[even good boots have an end at the top|it is good to ask how deep before you jump]",
            where="")


FRAMES = (
    the_tooth, the_moon_follows, the_balloon, footprints, the_same_bag, breakfast_surprise,
    the_umbrella, birds_in_winter, the_last_piece, splash,
)
