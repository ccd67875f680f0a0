"""Plots of wonder and of many hands: robots, treasure, wishes, hiding, a cart in the mud."""

from stories import words
from stories.story import Character, Story, the


def robot_learns(s: Story) -> None:
    """A robot knows a word but not the thing; it learns it and uses it at the right moment."""
    s.is_animal_world = False
    s.hero()
    gender = s.pick("f|m")
    name = s.pick(words.ROBOTS)
    s.roles["f"] = Character(name=name, kind="robot", gender=gender,
                             look=s.pick("small|silver|round|tall|rusty|blue") + " robot")
    idea, means, first, later = s.pick([
        ("a hug", "You put your arms around somebody and hold on, but not too tight",
         "hugged a lamp post", "{h} fell and scraped a knee, {f} came at once, opened both arms, "
         "and held on, but not too tight"),
        ("a joke", "You say something that surprises people, so that they laugh",
         "said, \"Table\", and waited", "{h} was sad because it rained on {h.his} birthday, {f} "
         "put a cake on {f.his} head and said, \"Now I am a candle holder\""),
        ("a secret", "It is something that you know and do not tell",
         "told everyone that {f.he} had a secret",
         "{h} planned a surprise for {h.his} grandmother, {f} did not say one word for a whole "
         "week"),
        ("a present", "You give something away, and you are glad about it",
         "gave {h} a used battery",
         "it was {h.his} birthday, {f} brought a music box made of {f.his} own spare parts"),
        ("a nap", "You close your eyes and do nothing for a while",
         "closed both eyes and fell over",
         "{h} was tired and cross, {f} put a blanket over {h.him} and kept watch"),
        ("a song", "It is a string of sounds that fit the way you feel",
         "beeped one note for an hour",
         "{h} could not sleep, {f} hummed very low, until {h} was dreaming"),
        ("sharing", "You have something, and you give a part of it to another",
         "broke an umbrella in two and gave {h} half of it",
         "{h} forgot {h.his} coat, {f} opened a little door and let {h.him} warm {h.his} hands at "
         "the motor"),
        ("waiting", "You stay where you are, although you want to go on",
         "stood in front of the oven for three days",
         "{h} was late from school, {f} was still standing at the corner where they always met"),
        ("a friend", "It is somebody who is glad when you come", "asked every tree if it was glad",
         "{h} came home from a long trip, {f} had counted the days and blinked all {f.his} lights "
         "at once"),
    ])
    s.roles |= {"idea": idea, "first": first, "later": later}
    s.open()
    s.one(
        "{h} had {f.a} named {f}. {f} could [count to a million|lift a piano|name every star"
        "|peel ten potatoes at once], but there were things {f.he} did not know.",
        "In {h.his} house lived {f.a} named {f}, who knew [every number|all the rivers of the world"
        "|the names of all the birds], but not everything.",
    )
    s.today("{f} had a question.", skies="rainy|sunny|cloudy")
    s.speak("f", "[I have read|I have heard] about " + idea + ". What does that mean?", "plain")
    s.tell("~{h} [thought about it|had never been asked that before].")
    s.speak("h", means + ".", "kind")
    s.speak("f", "~[I will try it|I understand|That sounds easy]. [Beep|Thank you|Watch me].",
            "plain")
    s.tell("So {f} {first}. {h} laughed [so hard that {h.he} had to sit down"
           "|until {h.his} tummy hurt].")
    s.speak("h", "[Not like that|Almost]! [You will know when the time comes"
            "|You will feel when it is right|Never mind, it took me years, too].", "happy")
    s.para()
    s.tell("[Days went by|A week passed|Some time went by]. Then one [day|evening], when {later}.")
    s.tell("~{h} [looked up|said nothing for a moment|smiled].")
    s.speak("h", "[Now you know|Now you understand it|That was it].", "kind")
    s.speak("f", "[Yes|I think so]. [It is not in any book|It was warm in my wires"
            "|It is more than a word].", "happy")
    s.close("[some things can only be learned by doing them|a word is small, and what it means can "
            "be big|even a robot can learn with its heart]", where="")


def treasure_map(s: Story) -> None:
    """A map with three signs; each sign is found in order; the treasure is something with a use."""
    s.friends(robots=True)
    signs = s.sample("the crooked tree|the white rock|the old well|the broken fence|the round hill"
                     "|the dry stream|the stone lion|the hollow log|the red gate|the three pines",
                     3)
    s.roles |= {f"s{i}": sign for i, sign in enumerate(signs)}
    find, use = s.pick([
        ("a box full of glass marbles", "They played with them until it was dark"),
        ("an old brass bell", "They hung it over the door, and it rang whenever a friend came"),
        ("a letter and two medals made of tin", "The letter said: For those who do not give up"),
        ("a jar of seeds",
         "They planted them, and in the summer the whole yard was full of flowers"),
        ("a bag of chocolate coins", "They ate two and kept two for the next rainy day"),
        ("a pair of spyglasses", "They climbed the hill and saw all the way to the sea"),
        ("a book without words", "They wrote their own story into it"),
        ("a music box with a tiny dancer", "It played the song that {e} always hummed"),
        ("a wooden top with a name on it: {e}",
         "{e} laughed and cried a little and showed them how to spin it"),
    ])
    s.elder()
    s.roles |= {"find": find, "use": use}
    steps = s.sample(range(3, 13), 2)
    s.roles |= {"n1": words.NUMBERS[steps[0]], "n2": words.NUMBERS[steps[1]]}
    s.let(where="in an old coat|behind a picture|between the pages of a book|in a bottle"
          "|under a loose board|in the bottom of a drawer")
    s.open(friend=True)
    s.today("{h} and {f} found a piece of paper {where}. It was a map!",
            skies="rainy|sunny|windy|cloudy",
            hours="morning")
    s.speak("f", "[Read it|Read it out loud|Open it]!", "excited")
    s.speak("h", "Start at {s0}. Go {n1} steps to {s1}. Then go {n2} steps to {s2}, and dig.",
            "plain")
    s.tell("They took a [spade|shovel] and [a sandwich|a bottle of water"
           "|a rope] and {ran} to {s0}.")
    s.tell("From there {h} counted {n1} steps, [out loud|with long legs]. [And really"
           "|Yes], they found {s1}, [behind some bushes|smaller than they had thought"
           "|just as the map said].")
    is_upside_down = s.chance(0.5)
    if is_upside_down:
        s.tell("But the next {n2} steps led them [into a thorn bush|straight into a puddle"
               "|up to a wall].")
        s.speak("f", "[That can't be right|Something is wrong]. [Turn the map around"
                "|You are holding the map upside down]!", "plain")
        s.tell("{h} turned the map around, and they went the other way, {n2} steps, right to {s2}.")
    else:
        s.tell("Then {f} counted {n2} steps, and [at the last one"
               "|there] they stood in front of {s2}.")
    s.para()
    s.tell("They dug [until their arms were sore|in turns|for an hour]. {suddenly} there was a "
           "clunk. They had hit something hard.")
    s.speak("h",
            "[There's something here|A treasure|We found it]! [Help me lift it|Pull|Careful now]!",
            "excited")
    s.tell("It was {find}. {use}.")
    s.maybe(0.7, "At home they drew a new map, for somebody else to find, and put it back {where}.",
            "{e} [winked|only smiled] when they asked who had drawn the map.")
    s.close("[it helps to hold the map the right way up|a mistake can be turned around]"
            if is_upside_down else
            "[looking for it was the best part|a treasure is worth more when two have found it]",
            where="home")


def hide_and_seek(s: Story) -> None:
    """Everyone is found but one; the hiding place fits the one who hides."""
    s.friends()
    s.hero("g")
    s.hero("i")
    last, clue, funny = s.pick([
        ("in the laundry basket, under the shirts", "one sock had a nose", "sneezed three times"),
        ("behind the curtain", "the curtain had toes", "giggled"),
        ("high up in the apple tree", "an apple core fell on {h.his} head",
         "asked for another apple"),
        ("in the empty rain barrel", "the barrel hummed a song", "climbed out, wet to the knees"),
        ("among the scarecrow's old clothes", "the scarecrow scratched its ear",
         "kept the hat on for the rest of the day"),
        ("in the dog house, next to the dog", "the dog had two tails",
         "had dog hair from top to toe"),
        ("under the upside-down wheelbarrow", "the wheelbarrow moved all by itself",
         "crawled out like a turtle"),
        ("in the big clock", "it struck thirteen", "was dizzy from the ticking"),
        ("under the table with the long cloth", "a hand took a cookie from the plate",
         "had crumbs everywhere"),
    ])
    s.roles |= {"last": last, "clue": clue, "funny": funny}
    spots = s.sample("behind the woodpile|under the porch|behind the big pot|in the tall grass"
                     "|behind the shed|under the stairs|behind the wagon|inside the hay", 2)
    s.roles |= {"p1": spots[0], "p2": spots[1], "count": s.pick("ten|twenty|thirty|fifty")}
    s.open(friend=True, keepsake=False)
    s.today("{h}, {f}, {g.full} and {i.full} played hide and seek. It was {h.his} turn to seek.")
    s.tell("{h} [closed {h.his} eyes|turned to the wall|put {h.his} face against a tree] and "
           "counted to {count}[, slowly and loudly|, and did not cheat|, skipping only a few].")
    s.speak("h", "[Ready or not, here I come|I'm coming|Watch out, I'm coming]!", "excited")
    s.tell("{g} was easy to find, for {g.his} [ear|back|foot] was showing {p1}.")
    s.tell("{then} {h.he} found {i} {p2}, who [had fallen asleep|could not stop laughing"
           "|had a spider on the nose].")
    s.tell("But where was {f}? They looked [high and low|in every corner|upstairs and downstairs"
           "|all around]. They called. No answer.")
    s.speak("g", "[Did {f} go home|Do you think something happened|What if {f} is lost]?", "plain")
    if s.chance(0.5):
        s.speak("h", "[{f} would never go without a word|No, {f} is just very good at this]. "
                "[Let's be quiet and listen|Hush, listen].", "plain")
    else:
        s.tell("{h} was [getting worried|a little worried]. {h.he} [sat down to think"
               "|stood still and listened].")
    s.para()
    s.tell("{suddenly} {h} noticed something: {clue}! {h.he} [tiptoed over|laughed"
           "|put a finger to {h.his} lips].")
    s.speak("h", "[Found you|There you are|I see you], {f}!", "happy")
    s.tell("{f} had been {last}, [all the time|the whole time]. {f.he} {funny}, and everyone "
           "laughed.")
    s.speak("f", "[Was I the last one|Did I win|How long did it take]?", "proud")
    s.speak("g", "[You are the champion|By far|You won]! [Next time, I'll hide there, too"
            "|Now it's your turn to seek].", "happy")
    s.close("[sometimes you find more when you stop and listen"
            "|it is nice to be hidden, and nicer to be found]", where="")


def the_stuck_cart(s: Story) -> None:
    """Too heavy for one; helpers come in a row, and the smallest one makes the difference."""
    s.hero(traits=("busy", "kind", "cheerful", "patient"))
    thing, owner_line = s.pick([
        ("cart", "It was full of pumpkins for the market"),
        ("boat", "It had to get from the shed to the water"),
        ("log", "It lay across the road after the storm"),
        ("turnip", "It had grown bigger than a chair"),
        ("piano", "It stood in the yard, and rain was coming"),
        ("wagon", "It was loaded with hay"),
        ("snowball", "It was meant for the biggest snowman in the land"),
    ])
    s.roles |= {"thing": thing, "line": owner_line}
    helpers = s.sample(
        "a goat|a pony|a big dog|a bear|a goose|a donkey|a wolf|a sheep|a cow" if s.is_animal_world
        else "a goat|a pony|a big dog|a strong boy|a farmer|a postman|a baker|a cow|a teacher", 2)
    tiny = s.pick("a mouse|a sparrow|a beetle|a frog|a snail")
    s.roles |= {"h1": helpers[0], "h2": helpers[1], "h3": tiny, "the1": the(helpers[0]),
                "the2": the(helpers[1]), "the3": the(tiny)}
    s.open(keepsake=False)
    s.today("{h} [pulled|tried to pull] a {thing}. {line}. But it [would not move, not even a "
            "little|was stuck|did not move at all|was much too heavy].",
            skies="snowy" if thing == "snowball" else "cloudy|windy|sunny")
    s.speak("h", "~[Heave|Come on|Move, please]! [It's too heavy|I'm not strong enough"
            "|You lazy old thing].", "cross")
    s.tell("Along the road came {h1}.")
    s.speak("h", "[Can you help me|Would you help me|Will you pull with me], please?", "kind")
    s.tell("{the1} [nodded|was glad to help|took hold]. They pulled together, {h} in front and "
           "{the1} behind. The {thing} [shook a little|creaked], but it stayed.")
    s.tell("{then} {h2} came by, [saw them|stopped] and took hold, too. {h}, {the1} and {the2} "
           "pulled until their faces were red. The {thing} [moved as far as a finger is long"
           "|groaned], and stopped.")
    s.para()
    s.tell("{atlast} came {h3}.")
    s.one('"Can I help?" asked {the3}.', '"Let me try, too," said {the3}.',
          '"You need one more," said {the3}.')
    s.one("{the2} laughed. \"You? You are too small!\"",
          "{the1} looked down. \"You are no bigger than my nose,\" said {the1}.",
          "Everyone smiled.")
    s.speak("h", "[Nobody is too small to help|Every little bit counts"
            "|Let's try it, why not]! [All together now|One, two, three].", "kind")
    s.tell("So {h} pulled, and {the1} pulled, and {the2} pulled, and {the3} [pushed with its tiny "
           "nose|pulled at the very end|found the one small stone that was in the way]. And [pop"
           "|creak|swish], the {thing} moved!")
    s.one(
        "They all fell over backward and lay there laughing.",
        "\"It was me,\" said {the3}, and nobody could say that it was not.",
        "That evening they all sat together and ate pie, and {the3} got the [first|best"
        "|biggest] piece.",
    )
    s.close("[the smallest helper can be the one that was missing|many can do what one cannot]",
            where="")


def the_wish(s: Story) -> None:
    """A wish comes true a little too well, and is taken back or changed."""
    s.hero()
    giver = s.pick("a star|an old well|a blue fish|a tiny fairy|a talking crow|a wishing stone")
    s.roles |= {"giver": giver, "the_giver": the(giver)}
    wish, joy, trouble, learned = s.pick([
        ("to be as tall as a tree", "could look into every nest",
         "{h.he} could not fit through {h.his} own door", "just the right size"),
        ("that it would be summer forever", "swam and ate ice cream every day",
         "the flowers dried up and nobody had seen the stars for weeks",
         "glad of the first cold wind"),
        ("to have a hundred toys", "did not know where to begin",
         "{h.he} could not find {h.his} old bear under the heap", "happy with the old bear"),
        ("to be as small as a mouse", "slept in a teacup and rode on a beetle",
         "the cat came around the corner",
         "glad to be big enough for a hug"),
        ("to eat nothing but cake", "ate cake for breakfast, noon and night",
         "{h.his} tummy hurt and {h.he} dreamed of carrots", "happy about a bowl of plain soup"),
        ("to never have to sleep", "played all through the night",
         "{h.he} was so tired that {h.he} put {h.his} shoes on {h.his} ears",
         "in love with {h.his} bed"),
        ("to fly like a bird", "saw the river from above, like a ribbon",
         "it grew dark, and all {h.his} friends were far below",
         "glad of the ground under {h.his} feet"),
        ("to be invisible", "took a cookie, and nobody saw it",
         "everyone sat down to supper and nobody kept a chair for {h.him}", "happy to be seen"),
        ("that everything {h.he} touched would turn to candy", "licked the fence and the chair",
         "the pillow was sticky and the dog was afraid to come near", "happy with plain things"),
    ])
    s.roles |= {"wish": wish, "joy": joy, "trouble": trouble, "learned": learned}
    s.let(why="{h.he} had freed it from a net|{h.he} had said good evening to it"
          "|{h.he} had been kind to it|{h.he} had shared {h.his} bread with it"
          if giver[-4:] in ("fish", "crow", "airy") else
          "{h.he} had found it before anyone else|it was the longest night of the year"
          "|{h.he} had waited there for so long")
    s.open(keepsake=False)
    s.tell("One [night|evening|morning] {giver} [spoke|began to speak] to {h}, because {why}.")
    s.tell('"[You have one wish|One wish is yours|I can grant you one wish]," said {the_giver}. '
           '"[Think well|Choose well|Take your time]."')
    s.tell("But {h} did not [think|need time]. {h.he} wished {wish}. And [so it was"
           "|it came true at once|the next moment, it was so].")
    s.para()
    s.tell("At first it was wonderful. {h} {joy}.")
    s.speak("h", "[This is the best wish ever|I will never wish for anything else"
            "|Everyone should wish for this]!", "happy")
    s.tell("But [then|after a while|before long|one day] {trouble}.")
    s.speak("h", "[Oh, I didn't think of that|This is not what I wanted"
            "|I want everything to be as it was]!", "sad")
    s.tell("{h} {ran} back to {the_giver}." if giver != "a star" else "{h} [looked up|called up] "
           "to the star.")
    s.speak("h", "Please, [take it back|undo it|let me give the wish back]!", "sad")
    s.tell('"[I waited for you|Almost everyone comes back|I thought so]," said {the_giver}[, and '
           'there was a smile in the voice|]. "[It is done|Go home|So be it]."')
    s.para()
    s.one("When {h} woke up, all was as before. {h.he} was {learned}.",
          "And then everything was as it had been, and {h} was {learned}.")
    s.close("[not every wish is good for long|what you have can be better than what you wish for"
            "|it is wise to think before you wish]", where="")


def the_lost_purse(s: Story) -> None:
    """Something valuable is found; keeping it is tempting; its owner is worth finding."""
    s.friends()
    job, s.roles["sign"] = s.pick([
        ("baker", "some flour in the corners"), ("tailor", "a spool of white thread"),
        ("shoemaker", "a tiny hammer"),
        ("old gardener", "a dried flower and some earth"), ("music teacher", "a page of music"),
        ("painter", "a spot of blue paint"), ("clock maker", "a small brass wheel"),
        ("fisher", "a hook and a fish scale"),
    ])
    s.neighbor(jobs=job)
    s.thing("t", "purse|bag|wallet|box", "red|brown|green|blue|black")
    s.let(dream="a new kite|a big cake|a pair of skates|a puppy|a drum",
          spot="under the bench|on the path|beside the fountain|near the bus stop|on the steps")
    s.open(friend=True)
    s.today("{h} found {t.a} {spot}. There was money in it, more than {h.he} had ever seen.")
    s.speak("f",
            "[We are rich|Look at all that money]! [We could buy {dream}|Think of it: {dream}].",
            "excited")
    s.tell("{h} [thought of {dream}|said nothing|turned it over]. [Nobody had seen them"
           "|Nobody was near]. But then {h.he} looked inside once more. There was also {sign}.")
    s.speak("h", "[Somebody is looking for this|Somebody is sad right now"
            "|It belongs to somebody]. [We have to find out who|Let's give it back"
            "|It is not ours].", "kind")
    s.maybe(0.6, "{f} [looked at the ground|kicked a stone|thought of {dream} one last time] and "
            "nodded.")
    s.para()
    s.tell("That was a good clue. They [asked in every shop|went from door to door"
           "|thought hard]: who could it be? {then} they saw {n}, who was [looking under every "
           "bench|turning out every pocket|as white as a sheet].")
    s.speak("h", "[Did you lose something|Are you looking for something]?", "plain")
    s.speak("n", "My {t.full}! [All the money for the rent is in it|I worked a whole month for that"
            "|I was going to buy medicine with it].", "sad")
    s.tell("{h} held it out. {n} [could hardly speak|had tears in {n.his} eyes|hugged them both].")
    s.one(
        "The next day, {n} sent them [a basket of pears|two big cookies|a jar of honey].",
        "{n} wanted to give them a coin each, but {h} [shook {h.his} head"
        "|said no]. It was enough to see {n.him} smile.",
        "From then on, whenever they passed, {n} [waved to them from far away|gave them a big smile"
        "|told everybody how honest they were].",
    )
    s.close("[what you find still belongs to somebody|a clear heart is better than a full purse"
            "|it feels good to give back what is not yours]", where="home")


def cleaning_up(s: Story) -> None:
    """A place is spoiled; one begins alone; others join; it is nice again, and stays so."""
    s.friends(traits=("busy", "thoughtful", "kind", "patient", "quiet"))
    s.place("p", "the park|the beach|the pond|the playground|the river|the meadow")
    s.let(mess="paper, cans and bottles|old bags and cans|broken toys and paper cups"
          "|bits of string and plastic",
          others="two rabbits|some neighbors|three friends|a whole family of mice|an old crow"
          if s.is_animal_world else
          "two children|some neighbors|three friends|a whole family|the mailman")
    s.roles["sight"], s.roles["after"] = s.pick([
        ("a duck with a string around its foot", "the duck swam off without the string"),
        ("a fish in a bottle", "the fish was back in the water"),
        ("flowers under a heap of cans",
         "the flowers stood up again"),
        ("a swing that nobody could use", "the swing was never still"),
        ("a bird with paper in its beak",
         "the bird sang in a tree"),
    ])
    s.open(keepsake=False)
    s.tell("{h} loved {p}. But lately there was trash all over: {mess}.")
    s.today("{h.he} saw {sight}.")
    s.speak("h", "[Somebody should do something|This can't go on|What a mess]!", "cross")
    s.tell("Nobody [answered|came]. So {h} [got a bag|fetched a big bag"
           "|took a rake and a bag] and began [alone|all alone].")
    s.tell("{f.full} [came by|rode past|stopped].")
    s.speak("f", "[Why do you do that|Will you ever finish]? [It wasn't you who threw it there"
            "|That is a lot of work for one].", "plain")
    s.speak("h", "[No, but I live here|I know, but somebody has to begin"
            "|One piece less is one piece less].", "plain")
    s.tell("{f} [watched for a while|went away, and came back with a second bag"
           "|thought about that]. Then {f.he} [picked up a can|began to help|held the bag open].")
    s.para()
    s.tell("After an hour, {others} [stopped to look|asked what they were doing] and [joined in"
           "|helped, too]. [Someone brought a cart|Someone brought lemonade"
           "|Someone began to sing]. By evening there were [six|eight|nine|ten|twelve] full bags.")
    s.tell("{p} looked [new|like it used to|as if it had been washed], and {after}.")
    s.speak("f", "[And if they do it again|What if somebody throws something away tomorrow]?",
            "plain")
    s.speak("h", "[Then we'll be here, too|We'll paint a sign|We will put up a trash can]. [Now we "
            "are many|It was fun, too].", "happy")
    s.close("[somebody has to be the first|big work gets small with many to share it"
            "|one good example is better than ten complaints]", where="")


def caterpillar(s: Story) -> None:
    """A small guest changes; it seems lost; waiting shows what it was."""
    s.hero(traits=("curious", "gentle", "patient", "quiet", "thoughtful"))
    s.elder()
    s.let(name="Stripe|Fuzzy|Curly|Mister Green|Noodle|Tickle|Bean",
          body="green|striped|black|hairy|yellow",
          wings="orange and black|blue|yellow|white with black dots|red and brown",
          food="cabbage leaves|nettle leaves|fresh grass|willow leaves")
    s.open(keepsake=False)
    s.today("{h} found a [tiny|small|fat] {body} caterpillar [on a leaf|on {h.his} sleeve"
            "|on the gate|in the salad]. {h.he} called it {name}.", skies="sunny|cloudy")
    s.tell("{name} lived in a [glass with holes in the lid|box with a window"
           "|big jar] and ate {food}, [all day long|from morning to night]. {h} [told it everything"
           "|drew its picture|cleaned its house every day].")
    s.tell("But one morning {name} was gone. On the twig hung a [brown|gray] thing, [dry and still"
           "|like a rolled-up leaf].")
    s.speak("h", "{e}! {name} is gone! [Only this thing is left|There's just an ugly old thing].",
            "sad")
    s.tell("{e} [looked closely|put on {e.his} glasses] and [smiled|nodded].")
    s.speak("e", "[{name} is in there|Look, that is {name}]. [Something is happening that takes "
            "time|It is building something|Do not touch it, only wait].", "wise")
    if s.chance(0.6):
        s.speak("h", "[How long|How many days]?", "plain")
        s.speak("e", "[As long as it takes|Longer than you like|Until it is ready].", "wise")
    s.para()
    s.tell("{h} looked every morning. [It was the hardest waiting of all"
           "|Sometimes {h.he} thought it moved|{h.he} whispered good night to it every evening].")
    s.tell("On the [tenth|eleventh|twelfth|thirteenth|fifteenth] day it [shook|cracked"
           "|split]. Something [wet|crumpled] climbed out and [rested"
           "|held on to the twig]. Slowly, slowly it opened two wings, {wings}.")
    s.speak("h", "[It's you|{name}, it's you|So that's what you were doing]! [You are a butterfly"
            "|You are beautiful|Look at your wings]!", "excited")
    s.tell("They [went outside|opened the window]. The butterfly sat on {h.his} [finger|nose"
           "|{h.hand}] for a moment. Then it flew [over the fence|up into the light"
           "|away over the garden].")
    s.one("{h} was a little sad and very happy, both at once.",
          "{h} waved until it was only a dot.",
          "The next summer there were [seven|eight|five] caterpillars in the garden.")
    s.close("[some changes look like an ending|you cannot hurry what is growing"
            "|what looks dry and still can be full of life]", where="")


def seesaw(s: Story) -> None:
    """One is heavy and one is light; how to make it balance is found by trying."""
    s.friends(traits=("big", "large", "tall", "strong"), friend_traits=("tiny", "small"))
    s.hero("g")
    s.open(friend=True, keepsake=False)
    s.today("they found a [board across a log|seesaw|long plank on a stone]. {h} sat down at one "
            "end, {f} at the other.")
    s.tell("[Thump|Bump]! {h.his} end went down, and {f} [hung high in the air"
           "|shot up like a cork] and [could not come down|kicked {f.his} feet].")
    s.speak("f", "[Let me down|It's too high|This is no fun]!", "scared")
    s.tell("{h} [got off carefully|slid down slowly], and {f} came down with a bump.")
    s.speak("h", "[It's my fault|I'm too big for everything|I spoil every game]. [Maybe you should "
            "play with somebody small|I will go home].", "sad")
    s.speak("f", "[Don't say that|Nonsense|Wait]! [There must be a way|Let's think first"
            "|We'll find a way].", "kind")
    way = s.pick("middle|more|third")
    s.para()
    if way == "middle":
        s.tell("{f} [looked at the board|walked around it] and pointed to a place [close to"
               "|near] the middle.")
        s.speak("f", "[Try sitting there|Sit there]. [I stay at the end|I'll stay far out].",
                "plain")
        s.tell("{h} moved closer to the middle, bit by bit. The board [trembled"
               "|began to lift]. Then it hung straight in the air, as level as a table.")
        lesson = ("[you do not have to be smaller, only to sit in the right place"
                  "|a small one far out can lift a big one close by]")
    elif way == "more":
        s.tell("{f} [put a heavy stone on {f.his} end|filled a bucket with sand and put it beside "
               "{f.him}]. It was not enough. {f.he} added [another|a second one], and a third.")
        s.tell("Slowly {h.his} end came up. At the third one it hung straight in the air, as level "
               "as a table.")
        lesson = ("[balance can be found bit by bit"
                  "|three small things can weigh as much as a big one]")
    else:
        s.tell("{g.full} came along, and {f} [waved|called out].")
        s.speak("f", "[Come and sit behind me|We need you here], {g}! [Two small ones make a big "
                "one|Together we are as heavy as {h}]!", "excited")
        s.tell("{g} sat down behind {f}. The board [trembled|moved]. Then it hung straight in the "
               "air, as level as a table.")
        lesson = "[two small ones can balance a big one|a game gets better with one friend more]"
    s.speak("h", "[It works|I'm flying|We did it]! [Push off|Up and down|Hold on]!", "happy")
    s.tell("Up and down they went, [until supper|until the sun was low"
           "|singing at the top of their voices], and nobody was too big and nobody was too small.")
    s.close(lesson, where="")


def the_echo(s: Story) -> None:
    """Somebody answers from the hills; it is as rude, or as kind, as the one who calls."""
    s.hero(traits=("loud", "lively", "proud", "playful", "curious"))
    s.elder()
    s.let(where="on the hill|in a deep valley|at the old quarry|in front of the high rocks"
          "|at the edge of a wide lake", bad="Go away|You are silly|I don't like you|Be quiet",
          good="Hello, friend|Come and play|You are nice|Good evening")
    s.open()
    s.today("{h} was walking with {e} {where}. {h.he} called, just for fun, \"Hello!\"")
    s.tell('"Hello!" somebody called back.')
    s.speak("h", "[Who is there|Is somebody there|Did you hear that]?", "plain")
    s.tell("Nobody answered. [Only the question came back|The hills asked the very same thing"
           "|The same words came back], [word for word|in the same voice|from far away].")
    s.tell("That made {h} angry. \"{bad}!\" {h.he} shouted. \"{bad}!\" came the answer, [just as "
           "loud|even angrier|from all sides].")
    s.speak("h", "{e}, [there is somebody very rude over there|somebody over there is making fun "
            "of me]!", "cross")
    s.tell("{e} [tried not to laugh|hid a smile|sat down on a stone].")
    s.speak("e", "[And what did you say first|What did you say to them"
            "|How did you speak to them]? [Try something kind|Now say something nice"
            "|Try it again, but with a kind word].", "wise")
    s.tell("{h} [was not sure|frowned|thought about it]. Then {h.he} [put both {h.hands} around "
           "{h.his} mouth|took a deep breath] and called, \"{good}!\"")
    s.para()
    s.tell("\"{good}!\" it came back, [warm and clear|once, twice, three times"
           "|soft and far away]. {h} [smiled|began to laugh], and the hills laughed, too.")
    s.speak("e", "[It is an echo|That is called an echo]. [It can only give back what it gets"
            "|The hills give you what you give them|Friends are often like that, too].", "kind")
    s.maybe(0.6, "On the way home {h} said something nice to everyone they met, and [nearly "
            "everyone said something nice back|counted how many smiles {h.he} got].")
    s.close("[a kind word comes back|what you call into the world is what the world calls back]",
            where="home")


def the_new_glasses(s: Story) -> None:
    """Something new feels wrong because others may laugh; it turns out to be useful."""
    s.friends(traits=("shy", "quiet", "careful", "clever", "thoughtful"))
    item, use = s.pick([
        ("round glasses", "could read the sign on the far side of the river"),
        ("rain boots that were too big",
         "walked right through the flood on the road and carried the others across"),
        ("a very long scarf",
         "tied one end to a tree and pulled a friend out of the mud with the other"),
        ("a hat with a wide brim", "kept four friends dry under it when it began to pour"),
        ("a jacket with fourteen pockets",
         "had a string, a cork, a candle and a plaster just when they were needed"),
        ("a silver whistle on a string", "blew it in the fog, and everyone found the way back"),
        ("a coat as yellow as a lemon", "was seen from far away when they were lost in the snow"),
    ])
    s.roles |= {"item": item, "use": use}
    plural = item.split()[-1] == "glasses" or "boots" in item
    if plural:
        s.roles |= {"they": "they", "them": "them", "looks": "look"}
    else:
        s.roles |= {"they": "it", "them": "it", "looks": "looks"}
    s.elder()
    s.open(friend=True, keepsake=False)
    s.tell("{e} gave {h} {item}.")
    s.speak("h", "[Everyone will laugh at me|I can't go out like this"
            "|I look funny]. Nobody else [wears|has] such a thing.", "sad")
    s.speak("e", "[Wear {them} for one day|Just try {them} for a day], and then tell me.", "kind")
    s.today("{h} went out, [close to the wall|with {h.his} eyes on the ground"
            "|as quietly as {h.he} could]. And yes, somebody laughed.")
    s.tell("{f} came running. {f.he} [looked at {h} from top to toe|stopped and stared].")
    s.speak("f", "[{they} {looks} special|I like {them}|Oh, how nice]!", "happy")
    s.tell("~{h} [did not believe it|shook {h.his} head|smiled a little].")
    s.para()
    s.tell("In the afternoon something happened that nobody had expected. It was {h} who {use}.")
    s.speak("f", "[Good that you have {them}|Hooray for {h}|Nobody else could have done that]!",
            "excited")
    s.tell("Nobody laughed [now|any more]. The one who had laughed [came and said sorry"
           "|asked to try {them} on|turned red and went home].")
    s.tell("In the evening {e} asked, \"[Well|So]?\" And {h} said, \"[I'll wear {them} tomorrow, "
           "too|You can't have {them} back|One day was not enough].\"")
    s.close("[it is all right to look different|what is odd in the morning may be useful at night]",
            where="")


FRAMES = (
    robot_learns, treasure_map, hide_and_seek, the_stuck_cart, the_wish, the_lost_purse,
    cleaning_up, caterpillar, seesaw, the_echo, the_new_glasses,
)
