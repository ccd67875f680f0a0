"""Plots of making and learning: building, mending, painting, music, markets, riddles."""

from stories import words
from stories.story import Story, the


def building(s: Story) -> None:
    """The first one falls down; why it fell decides how the second one is built."""
    s.friends(robots=True)
    what, stuff, flaw, cure = s.pick([
        ("tower", "blocks", "it was too thin at the bottom", "a wide bottom"),
        ("hut", "branches", "the poles only stood on the ground", "holes for the poles"),
        ("bridge", "boards", "it had no leg in the middle", "a strong post in the middle"),
        ("tree house", "old planks", "there were too few nails", "twice as many nails"),
        ("dam", "mud", "the water washed the mud away", "stones under the mud"),
        ("wall", "stones", "all the round stones were below", "the flat stones below"),
        ("tent", "blankets", "the rope was too loose", "a rope as tight as a string on a fiddle"),
        ("raft", "logs", "the knots came open", "double knots"),
    ])
    s.roles |= {"what": what, "stuff": stuff, "flaw": flaw, "cure": cure}
    places = {"dam": "the river", "raft": "the lake|the pond", "bridge": "the river",
              "tree house": "the orchard|the forest|the garden"}
    s.place("p", places.get(what, "the garden|the meadow|the park"))
    s.let(test="a sparrow sat down on it|the wind blew|{h} leaned on it|it began to rain"
          "|{f} sneezed")
    s.open(friend=True)
    s.today("they began to build a {what} {p.at}. They had a whole heap of {stuff}.",
            skies="sunny|cloudy|windy", hours="morning|day")
    s.speak("h", "[It will be the best {what} in the world|I want it to be finished by noon"
            "|Let's build it as fast as we can]!", "excited")
    s.tell("{h} [worked fast|did not stop to think|whistled while {h.he} worked], and [by noon"
           "|in an hour|soon] the {what} was done. Then {test}, and crash! It fell down.")
    s.speak("h", "[All that work for nothing|I give up|I never want to build anything again]!",
            "cross")
    s.tell("~{f} [walked around the heap|looked at the pieces"
           "|knelt down] and [said nothing for a while|thought].")
    s.speak("f", "[I see it now|Look here|I think I know why]. It fell because {flaw}. [So we need"
            "|It needs] {cure}.", "wise")
    s.maybe(0.4, "{h} [did not want to hear it|sat with {h.his} back turned]. But {soon} {h.he} "
            "came to look, too.",
            "{h} [rubbed {h.his} eyes|stood up again] and rolled up {h.his} sleeves.")
    s.para()
    s.tell("They began again, [slowly this time|step by step"
           "|without hurry]. This time they gave it {cure}. {h} [held|carried], {f} [tied|measured"
           "|checked], and nobody looked at the sun.")
    if s.chance(0.5):
        s.neighbor()
        s.tell("{n} came by, [watched|nodded] and brought [them a {treat}|two glasses of {drink}].")
    s.tell("[In the evening|Before supper] the new {what} stood. {h} [shook|pushed"
           "|blew on] it. It did not [move|fall].")
    s.speak("f", "[It holds|It stands]! [Now let the wind come|Nothing can knock it down"
            "|We learned how from the first one].", "happy")
    s.close("[a thing that falls down shows you how to build it|slow work often lasts longer"
            "|it is worth asking why something broke]", where="home")


def mending(s: Story) -> None:
    """A broken toy; wrong tools first, then the right one; the mend is seen and liked."""
    s.hero()
    s.elder()
    toy, part, bad1, bad2, good = s.pick([
        ("wooden truck", "wheel came off", "string, but the wheel would not turn",
         "honey, but that only made it sticky", "a new nail through the middle of the wheel"),
        ("teddy bear", "arm came off", "tape, but it did not stick to the fur",
         "glue, but it made the fur hard",
         "a needle and strong thread"),
        ("music box", "song stopped", "shaking it, but it only rattled",
         "singing to it, but it stayed quiet",
         "one drop of oil"),
        ("kite", "paper tore", "a leaf, but it blew away", "string, but the hole only got bigger",
         "a patch of paper and a little paste"),
        ("drum", "skin split", "tape, but it sounded like a pillow",
         "a paper bag, but it lasted for one beat",
         "a piece of old leather and a ring of nails"),
        ("toy boat", "bottom leaked", "chewing gum, but it fell out",
         "a cork, but it was too small",
         "warm wax in the crack"),
        ("rocking horse", "leg cracked", "a bandage, but it slipped", "paper, but it tore at once",
         "wood glue and two clamps, and a night of waiting"),
        ("umbrella", "handle broke", "a carrot, but somebody ate it", "a ribbon, but it bent",
         "a short stick of oak"),
    ])
    s.roles |= {"toy": toy, "part": part, "bad1": bad1, "bad2": bad2, "good": good}
    s.thing("t", [toy], "old|dear|little")
    s.open()
    s.tell("{h} had {t.a} that had [once|first] belonged to {e}.")
    s.today("while {h} was playing, the {part}.", skies="rainy|sunny|cloudy")
    s.speak("h", "[Oh, my poor {toy}|Now it's broken|{oh}]! [I can fix it|I'll fix it myself"
            "|It needs a doctor].", "sad")
    s.tell("First {h.he} tried {bad1}.")
    s.tell("{then} {h.he} tried {bad2}. {h} [threw up {h.his} {h.hands}|sighed"
           "|was ready to give up].")
    s.para()
    s.one("{e} [had watched from the door|came in|heard the sigh].",
          "{h} carried the {toy} to {e}.")
    if s.chance(0.5):
        s.speak("e", "[Shall I do it for you|Do you want me to do it], or shall I show you how?",
                "kind")
        s.speak("h", "[Show me how|I want to learn it|Let me do it, and you tell me how].", "plain")
    else:
        s.speak("e", "First look at [how it was made|what it is made of]. [Every kind of break "
                "needs its own cure|Then look for the right tool].", "wise")
    s.tell("They [opened the old tool box|went to the shed|looked through the drawer]. What they "
           "needed was {good}. {e} held it [still|steady], and {h} did the rest, [slowly and well"
           "|with {h.his} tongue between {h.his} teeth|without one mistake].")
    s.tell("{atlast} the {toy} was [whole again|fixed]. [One could see the mend"
           "|You could see where it had been broken], but {h} [liked that|did not mind"
           "|was proud of it].")
    if s.chance(0.5):
        s.hero("f")
        s.tell("The next day {f.full} [came over with|brought] a broken [chair|clock|doll"
               "|basket]. \"I heard you can fix things,\" {f.he} said. {h} [got"
               "|went for] the tool box.")
    s.close("[broken does not mean lost|the right tool is half of the work"
            "|it is better to mend than to throw away]", where="home")


def learning(s: Story) -> None:
    """Three tries at something hard; what goes wrong is named, practiced, and done."""
    s.friends(traits=("lively", "careful", "curious", "busy", "shy", "cheerful"))
    skill, fail, tip, done = s.pick([
        ("ride a bike", "fell over to the left", "look ahead and not at the wheel",
         "rode all the way to the corner and back"),
        ("swim", "sank like a stone", "breathe out slowly and kick with straight legs",
         "swam from one side of the pond to the other"),
        ("whistle", "blew nothing but air", "make a small round mouth and a flat tongue",
         "whistled so well that a bird answered"),
        ("tie a bow", "made one big knot", "make two ears like a rabbit",
         "tied two bows that did not come open all day"),
        ("skip stones", "heard only one big plop", "use a flat stone and throw it low",
         "made a stone jump five times"),
        ("jump rope", "got the rope around both feet",
         "listen for the beat and jump when it hits the ground",
         "jumped twenty times in a row"),
        ("stand on one leg", "fell over", "look at one point that does not move",
         "stood like a stork until supper"),
        ("juggle", "dropped every ball", "begin with only two", "kept three balls in the air"),
        ("skate", "sat down hard on the ice", "bend the knees and push to the side",
         "made a big round circle on the ice"),
        ("climb the rope", "slid back down", "hold the rope between the feet",
         "touched the knot at the very top"),
        ("read", "mixed up all the letters", "put one finger under each word",
         "read a whole page out loud"),
    ])
    s.roles |= {"skill": skill, "fail": fail, "tip": tip, "done": done}
    s.open()
    s.tell("[All|Nearly all] {h.his} friends could {skill}. Only {h} could not.")
    s.today("{h} [tried|tried it again|practiced where no one could see]. {h.he} {fail}. {h.he} "
            "tried once more, but it [was no better|went just the same].",
            skies="snowy" if skill == "skate" else "sunny|cloudy")
    s.speak("h", "[I can't do it|I'll never learn it|It's too hard for me]! [I give up"
            "|Everyone else can do it].", "sad")
    s.tell("{f.a} named {f} [had seen it|came by|was sitting on the fence].")
    s.speak("f", "[You can't do it yet|Not yet|I could not do it last year]. [Do you know the trick"
            "|Shall I tell you the secret|Do you want to know what helped me]? [You have to"
            "|You must] {tip}.", "kind")
    s.para()
    s.tell("~{h} tried again. [It was a little better|Almost"
           "|Not yet, but nearly]. {f} [counted along|clapped|gave a nod].")
    s.tell("For [three|four|five|six|ten] days they [met after breakfast and practiced"
           "|practiced together]. {h} [fell and got up|failed and laughed"
           "|made every mistake there is], [again and again|ten times a day].")
    s.tell("And then, [all by itself|on a {lovely} morning|when {h} was not even thinking about "
           "it], it worked. {h} {done}!")
    s.speak("h", "[Did you see that|Did you see me]? [I did it|I can do it]!", "excited")
    s.speak("f", "~[I saw it|Of course I saw]! [I knew you could|Now you can teach somebody, too"
            "|That was perfect]!", "happy")
    s.maybe(0.5, "A few weeks later {h} met somebody who could not {skill}. \"Not yet,\" said {h}, "
            "and told the secret.")
    s.close("[not yet is not the same as never|practice is stronger than luck"
            "|every master was once a beginner]", where="home")


def mixing_colors(s: Story) -> None:
    """A color is missing; two others make it; the picture shows what was wanted at the start."""
    s.hero()
    s.elder()
    s.hero("f")
    color, a, b, subject = s.pick([
        ("green", "blue", "yellow", "a frog in the grass"),
        ("green", "yellow", "blue", "a forest in spring"),
        ("orange", "red", "yellow", "a pumpkin"), ("orange", "yellow", "red", "a tiger"),
        ("orange", "red", "yellow", "a sunset over the sea"),
        ("purple", "red", "blue", "a plum tree"), ("purple", "blue", "red", "a king in his coat"),
        ("pink", "red", "white", "a pig in the mud"),
        ("pink", "white", "red", "a cherry tree in bloom"),
        ("gray", "black", "white", "an elephant"), ("gray", "white", "black", "a rainy day"),
        ("brown", "red", "green", "a bear by the fire"),
        ("light blue", "blue", "white", "the morning sky"),
    ])
    s.roles |= {"color": color, "a": a, "b": b, "subject": subject}
    s.let(why="for {e}|for the wall of the kitchen|for the school fair|for the summer fair")
    s.open()
    s.today("{h} [wanted to paint|sat down to paint] {subject} {why}. But the {color} paint was "
            "[all gone|dry and hard|used up].", skies="rainy|cloudy|sunny|snowy")
    s.speak("h", "[How can I paint {subject} without {color}|Who used all the {color}"
            "|Where is the {color}]?", "sad")
    s.tell("{f.full} [looked over {h.his} shoulder|was there, too]. {f.he} [had an idea"
           "|wanted to help].")
    wrong = s.chance(0.5)
    if wrong:
        others = ("black", "brown", "white", "green")
        s.roles["odd"] = s.pick([c for c in others if c not in (color, a, b)])
        s.speak("f", "[Take {odd}|Try {odd}]! [Nobody will notice|It's almost the same].", "plain")
        s.tell("{h} tried it. [It looked awful|It looked like mud"
               "|It was all wrong], and they both had to laugh.")
    s.speak("e", "[Which colors do you have|What is left in the box]?", "wise")
    s.speak("h", "[There is|We have] {a} and {b}.", "plain")
    s.speak("e", "[Then you have {color}, too|That is all you need]. [Take a little {a} and a "
            "little {b}, and stir|Mix them and see|Let them meet].", "wise")
    s.para()
    s.tell("{h} put a drop of {a} next to a drop of {b} and stirred. [Slowly, the two colors "
           "turned into {color}|Like magic, there was {color}"
           "|First there were stripes, and then it was {color}]!")
    s.speak("f", "[It's magic|Let me try|Do it again]!", "excited")
    s.tell("With the new {color}, {h} painted {subject}, and it [looked alive"
           "|was the best picture {h.he} had ever made|seemed to look back at them].")
    s.maybe(0.5, "{f} [mixed|tried] every color with every other, until {f.his} nose was [blue"
            "|green|red] and {f.his} ears were yellow.")
    s.close("[two things together can make a third that is new"
            "|what is missing can sometimes be made|{a} and {b} make {color}]", where="home")


def the_band(s: Story) -> None:
    """Three play at once and it is noise; someone counts, and it is music."""
    s.friends()
    s.hero("g")
    i1, i2, i3 = s.sample("drum|flute|fiddle|horn|bell|guitar|harp|piano|rattle|pot and a spoon", 3)
    s.roles |= {"i1": i1, "i2": i2, "i3": i3}
    s.let(event="the summer fair|the garden party|the harvest party|the night of lanterns"
          "|the big parade", listener="a dog howled|a baby cried|the birds flew away|a cow ran off"
          "|an old goat covered its ears")
    s.open(friend=True)
    s.today("{h}, {f} and {g.full} wanted to make music for {event}. {h} had a {i1}, {f} had a "
            "{i2}, and {g} had a {i3}.")
    s.tell("They all began [at once|at the same time], each with [another"
           "|a different] song, each as [loud|fast] as possible. It [was a terrible noise"
           "|sounded like falling pans|made the windows shake], and {listener}.")
    s.speak("h", "[You are too loud|Your {i2} is too loud|I can't hear myself], {f}!", "cross")
    s.speak("f", "[No, you are too fast|And your {i1} is too fast|It's your {i1}, not me]!",
            "cross")
    s.tell("{g} [put down the {i3}|covered both ears|sat down on a box].")
    s.speak("g", "[Stop|Wait]! [Nobody is listening|Everyone plays, and nobody listens]. [Let's "
            "try something|Let's play one by one|First one, then two, then all].", "plain")
    s.para()
    s.tell("So {h} began alone, with a slow, steady [beat|tune] on the {i1}. {g} counted: one, "
           "two, three, four. Then {f} came in with the {i2}, [softly"
           "|just a little], and last of all the {i3}.")
    s.tell("[Now each of them could hear the others|They looked at each other and played]. "
           "{suddenly} it was [a song|music]. [Even the birds came back"
           "|The dog lay down and listened|Their feet began to tap].")
    s.speak("f", "~[Do you hear that|Is that us]? [It sounds like one big instrument"
            "|We sound like a real band]!", "excited")
    s.para()
    s.tell("At {event}, everyone [danced|clapped along|sang with them], and the oldest guest "
           "wanted to hear it [again|three times].")
    s.close("[to play together, you have to listen|noise becomes music when everyone listens]",
            where="")


def the_market(s: Story) -> None:
    """Coins, prices and change, and the sums are right."""
    s.hero()
    s.elder()
    price, count = s.rng.randrange(2, 4), s.rng.randrange(2, 5)
    extra = s.rng.randrange(1, 5)
    total = price * count + extra
    item = s.pick("apple|pear|bun|candle|onion|lemon|egg|ribbon|carrot|melon")
    s.roles |= {
        "coins": words.NUMBERS[total], "price": words.NUMBERS[price], "count": words.NUMBERS[count],
        "cost": words.NUMBERS[price * count],
        "left": words.NUMBERS[extra], "item": item, "items": item + "s",
        "coin": "coin" if extra == 1 else "coins",
    }
    s.neighbor("n", "farmer|baker|gardener|market seller" if s.chance(0.6) else "")
    s.open()
    s.today("{e} [gave {h} a basket and {coins} coins|put {coins} coins into {h.his} pocket].",
            hours="morning", skies="sunny|cloudy|windy")
    s.speak("e", "[Please bring|Go to the market and bring] {count} {items}. [Can you do that alone"
            "|Will you remember that|Are you big enough for that]?", "kind")
    s.speak("h", "[Yes! {count} {items}|{count} {items}, I won't forget|Of course I can].", "proud")
    s.stroll(0.5)
    s.tell("~At the market there were [red tents|loud voices"
           "|a hundred smells], [a cart with balloons|a dog with a hat"
           "|a goat with bells] and [mountains of cheese|barrels of fish|baskets full of nuts].")
    s.tell("{h} said to {h.himself} all the way: {count} {items}. {then} {h.he} found {n}.")
    s.speak("h", "[How much is one {item}|What does one {item} cost], please?", "shy")
    s.speak("n", "{price} coins [each|for one]. [How many do you need|How many would you like]?",
            "plain")
    s.tell("{h} [counted in {h.his} head|moved {h.his} lips|drew little lines in the dust]. "
           "{count} times {price} makes {cost}.")
    s.speak("h", "{count}, please. That is {cost} coins.", "proud")
    s.speak("n", "[Right|Well done|Quite right]! [You are good with numbers|A smart customer"
            "|I don't have to count for you].", "happy")
    s.para()
    if s.chance(0.5):
        s.tell("{h} paid and had {left} {coin} left. There was a cart with candy next door, and "
               "the candy [smelled wonderful|was red and white]. {h} [stopped"
               "|looked at it for a long time]. But it was not {h.his} money, so {h.he} went home.")
        s.tell("{e} counted the {items} and the {left} {coin}, [nodded"
               "|smiled] and handed one coin to {h}.")
        s.speak("e", "[For my good helper|For somebody I can trust|This one is for you].", "proud")
    else:
        s.roles["lost"] = "a small mouse" if s.is_animal_world else "a small boy"
        s.tell("On the way home {h} met {lost}, who was looking for a lost coin on the ground. {h} "
               "had {left} {coin} left, but that was not {h.his} money. So {h.he} put down the "
               "basket and helped to look.")
        s.tell("{soon} they found it [between two stones|in a crack"
               "|under a leaf]. At home {e} counted the {items}, and the {left} {coin}, and [nodded"
               "|smiled].")
    s.close("[it is good to count twice|trust grows with every coin you bring home"
            "|who can count can go far]", where="home")


def riddles(s: Story) -> None:
    """A riddle bars the way; one wrong answer that almost fits; the right one, and why it fits."""
    s.friends(friend_traits=("clever", "thoughtful", "quiet", "funny"))
    s.neighbor()
    riddle, wrong, why_not, answer, clue = s.pick([
        ("What has teeth but cannot bite?", "An old dog",
         "an old dog still has a tongue and a bark", "A comb",
         "something in a bag made of hair"),
        ("What gets wetter the more it dries?", "The sea", "the sea dries nothing", "A towel",
         "the wash on the line"),
        ("What has hands but cannot clap?", "A tree", "a tree has arms, but no hands", "A clock",
         "the tower where it had just struck three"),
        ("What can you catch but never throw?", "A butterfly",
         "you could throw a butterfly, though you should not", "A cold", "somebody who sneezed"),
        ("What goes up and never comes down?", "A bird", "a bird comes down to sleep", "Your age",
         "the candles on a cake"),
        ("What has one eye but cannot see?", "A pirate", "a pirate sees very well", "A needle",
         "a torn coat"),
        ("What runs all day but has no legs?", "The wind", "the wind sleeps sometimes", "The river",
         "the water under the bridge"),
        ("What belongs to you, but others use it more than you do?", "Your toys",
         "you use your toys most of all", "Your name", "somebody who was calling for them"),
        ("What has a neck but no head?", "A scarf", "a scarf goes around a neck, but has none",
         "A bottle", "the milk on the table"),
        ("What is full of holes but still holds water?", "A net", "a net holds fish, but no water",
         "A sponge", "a bath tub"),
        ("The more you take away, the bigger it gets. What is it?", "Hunger",
         "hunger gets smaller when you eat", "A hole", "a mole that was digging"),
        ("What has a bed but never sleeps?", "A hospital", "somebody always sleeps in a hospital",
         "The river", "the stream beside the path"),
    ])
    s.roles |= {"wrong": wrong, "why_not": why_not, "answer": answer, "clue": clue}
    s.let(prize="a basket of apples|a big round cheese|a ride on the wagon|a key to the garden"
          "|a ticket to the fair|a jar of honey")
    s.roles["the_prize"] = the(s.roles["prize"])
    s.open(friend=True, keepsake=False)
    s.today("{n} [stopped them at the bridge|sat in front of the house"
            "|met them on the road] with {prize}.")
    s.speak("n", "[This is for the one who can answer my riddle"
            "|The one who solves my riddle may have it|Answer my riddle, and it is yours]. "
            + riddle, "wise")
    s.speak("h", "[That's easy|I know, I know]! {wrong}!", "excited")
    s.speak("n", "[Nice try|Not bad|No, no], but {why_not}. [Try again|Think again"
            "|You have until the sun goes down].", "kind")
    s.tell("{h} [named ten more things|guessed and guessed|scratched {h.his} head], and all of "
           "them were wrong. {f} [said nothing|sat on a stone and thought|closed {f.his} eyes].")
    s.speak("h", "[Why don't you say something|Are you asleep|What are you doing], {f}?", "cross")
    s.speak("f", "[I'm thinking|I'm looking around|Let me think]. [Sometimes the answer is very "
            "near|The answer may be something we see every day].", "plain")
    s.para()
    s.tell("They [walked a little|went home and came back|sat there for a long time]. {then} {f} "
           "[saw|looked at] {clue}, and [began to laugh|jumped up|slapped {f.his} knee].")
    s.speak("f", "[I have it|I know it]! {answer}!", "excited")
    s.speak("n", "[Right|That is right|Yes, yes]! [You did not guess, you thought"
            "|You used your eyes and your head|It took me a week when I was young].", "happy")
    s.tell("{n} gave {f} {the_prize}, and {f} shared with {h}, [of course|as friends do].")
    s.maybe(0.6, "All the way home {h} [asked the riddle to everyone they met"
            "|thought up a riddle of {h.his} own].",
            "That evening {h} asked {h.his} whole family. Nobody knew it.")
    s.close("[it is better to think once than to guess ten times|the answer is often close by]",
            where="")


def stage_fright(s: Story) -> None:
    """Somebody shy faces a crowd; a friend's idea, remembered at the right moment, helps."""
    s.friends(traits=("shy", "quiet", "gentle", "careful"),
              friend_traits=("funny", "lively", "cheerful", "kind"))
    s.let(act="sing a song|say a poem|play the flute|dance alone|tell a story"
          "|play the part of the tree",
          event="the school play|the spring fair|the evening of lights|the town party",
          idea="look only at me|think of everybody in pajamas|pretend you are alone in your room"
          "|imagine that they are all cabbages|breathe in, and count to four"
          "|hold this pebble tight", fear="What if I forget everything|What if they laugh"
          "|What if no sound comes out|What if I fall off the stage")
    s.open()
    s.tell("At {event}, {h} was to {act}. {h.he} had practiced [for weeks|every day"
           "|in front of the mirror|in the barn, with the cows listening], and it was [very good"
           "|almost perfect].")
    s.tell("But when the [day|evening] came, {h.his} knees [shook"
           "|were like pudding], and {h.his} mouth was [dry as sand|quite dry].")
    s.speak("h", "{fear}?", "scared")
    s.tell("{f.full} [was standing beside {h.him}|came behind the curtain"
           "|gave {h.him} a glass of water].")
    s.speak("f", "[I know what helps|Do it like me|I was scared, too, last year]. [When you are "
            "out there|When you begin], {idea}.", "kind")
    s.para()
    s.tell("The curtain opened. [So many faces|A hundred eyes"
           "|It was very bright]! {h} opened {h.his} mouth, and [nothing came|not a sound came out"
           "|the first word was gone]. [It was so quiet that one could hear a cough"
           "|Somebody coughed].")
    s.tell("{suddenly} {h.he} [remembered|thought of] what {f} had said: {idea}. {h} [did it"
           "|did just that]. [And|Slowly,] {h.his} [heart grew calm|knees stopped shaking"
           "|breath came back].")
    s.maybe(0.6, "The first [note|word|step] was small. The second was bigger. Then it went [all "
            "by itself|like a river].", "And then it all came back, [every bit of it"
            "|from beginning to end], better than ever before.")
    s.tell("At the end [everyone clapped|there was a storm of clapping"
           "|they stamped their feet and cheered]. {h} [bowed|turned red"
           "|bowed twice] and [looked for {f}|laughed].")
    s.speak("h", "[It worked|I did it]! [I was so scared, and I did it anyway|Your idea helped me"
            "|It was almost fun].", "happy")
    s.speak("f", "[I clapped the loudest|I knew it|You were wonderful]. [Next year, you can help "
            "somebody else|Next year, let's do it together].", "happy")
    s.close("[brave means to be afraid and do it anyway|a good friend is like a hand to hold]",
            where="home")


def first_day(s: Story) -> None:
    """The first day of school: what was feared in the morning is what went well by the evening."""
    s.hero(traits=("shy", "curious", "quiet", "careful", "cheerful", "lively"))
    s.elder()
    s.hero("f")
    worry, relief = s.pick([
        ("Nobody will sit next to me",
         "{f.full} sat down next to {h.him} before {h.he} could even look for a chair"),
        ("I won't find the right door",
         "there was a big {sign} on the right door, and {f.full} held it open"),
        ("I can't read yet", "nobody could read yet, not even {f.full}, who wore glasses"),
        ("The teacher will be strict", "the teacher wore odd socks and played the drum"),
        ("I will miss you", "there was so much to see that {h} forgot to look at the clock"),
        ("I don't know anybody",
         "{f.full} did not know anybody either, and then they knew each other"),
        ("I might cry",
         "{f.full} cried a little, and {h} lent {f.him} a handkerchief and had no time to cry"),
    ])
    s.let(sign="star|sun|bear|red apple")
    s.thing("t", "backpack|pencil case|lunch box|cap")
    s.roles |= {"worry": worry, "relief": relief}
    s.open(keepsake=False)
    s.today("it was {h.his} first day of school. {h} had {t.a}, [two sharp pencils|new shoes"
            "|a clean shirt] and a [strange feeling|flutter] in {h.his} tummy.", hours="morning")
    s.speak("e", "[Are you ready|Shall we go|Why are you so quiet], {dear}?", "kind")
    s.speak("h", "{worry}.", "scared")
    s.speak("e", "[I was afraid on my first day, too|Everybody feels like that the first time"
            "|I know that feeling]. [Tell me tonight if it came true|Wait and see"
            "|Let's see how it goes].", "kind")
    s.tell("~They [walked to the school|went down the road together]. At the gate {h} held {e.his} "
           "{e.hand} [very tight|a little longer]. Then {h.he} [let go"
           "|took a deep breath and went in].")
    s.para()
    s.tell("And what happened? {relief}.")
    s.maybe(0.6, "They [counted to twenty|sang about a snail|learned the letter A], [built a tower"
            "|fed a goldfish|painted with their feet], and then it was noon.",
            "The teacher [read a story about a bear|let them ring the bell"
            "|asked everyone's name], and {h} said {h.his} name [loud and clear"
            "|so that all could hear].",
            "At lunch, {h} opened {t.the} and found a note from {e}: a heart with two eyes."
            if s.roles["t"].noun != "cap" else
            "At noon they ran outside, and {t.the} flew off, and three others ran to catch it.")
    s.tell("In the afternoon {e} was waiting at the gate.")
    s.speak("e", "[Well, how was it|Did it come true|Were you very afraid]?", "kind")
    s.speak("h", "[No|Not at all|I forgot to be afraid]. [Can I come back tomorrow"
            "|Is there school on Sunday, too|Why do we have to go home already]?", "excited")
    s.close("[first days are hard only until they begin|most worries never come true]",
            where="home")


FRAMES = (
    building, mending, learning, mixing_colors, the_band, the_market, riddles, stage_fright,
    first_day,
)
