"""Plots at home: the dark, strange sounds, baking, a new baby, and falling asleep."""

from stories.story import Story


def afraid_of_the_dark(s: Story) -> None:
    """A shape in the dark is the very thing that was put there in the evening."""
    s.hero(traits=("quiet", "gentle", "shy", "curious", "thoughtful", "clever"))
    s.elder()
    item, put, shape = s.pick([
        ("coat", "hung {h.his} coat on the door", "a tall man without a head"),
        ("chair", "threw {h.his} clothes over the chair", "a crouching beast"),
        ("umbrella", "leaned the wet umbrella in the corner", "a long thin bird with one leg"),
        ("plant", "moved the big plant to the window", "a hand with many fingers"),
        ("blanket", "dropped a blanket next to the bed", "a bear asleep on the floor"),
        ("toy horse", "left the toy horse on the shelf", "a dragon with a long neck"),
        ("bucket", "left a bucket by the door", "a fat cat that never moved"),
        ("kite", "laid the new kite on top of the closet", "a giant bat"),
        ("mop", "left the mop beside the door", "a thin witch with wild hair"),
    ])
    s.roles |= {"item": item, "put": put, "shape": shape}
    s.let(light="a small lamp|a flashlight|a candle in a glass|a jar of fireflies")
    s.open(keepsake=False)
    s.tell("{h} was not afraid of [bees|deep water|loud noises|high trees"
           "|big dogs], but {h.he} was afraid of [one thing: the dark|the dark].")
    s.tell("One [evening|night], {h} {put} and [went to bed|climbed into bed"
           "|crawled under the covers]. {e} [turned off the lamp|blew out the candle"
           "|closed the door].")
    s.tell("{h} opened one eye. There, in the dark, [was|{h.he} saw] {shape}!")
    s.speak("h", "{e}! [Come quickly|Help]! [There is something in my room|It is looking at me"
            "|Something is there]!", "scared")
    s.tell("{e} came [at once|in slippers|up the stairs] and [sat on the bed"
           "|took {h.his} {h.hand}].")
    s.speak("e", "[What does it look like|What did you see|Tell me, what is it]?", "kind")
    s.speak("h", "[It's|It looks like] {shape}.", "scared")
    s.para()
    if s.chance(0.5):
        s.speak("e", "[Shall we look at it together|Are you brave enough to touch it with me"
                "|Do you want to find out what it is]?", "kind")
        s.tell("They walked closer, [step by step|side by side|very slowly].")
        s.tell("{h} [reached out|leaned forward] and felt... the {item}.")
    else:
        s.tell("{e} [lit a match|pulled back the curtain|turned on the light]. There was only the "
               "{item}, just where it had been in the evening.")
    s.tell("~{h} [had to laugh|blinked|felt silly, but very glad]. It was the same {item} that "
           "{h.he} had seen [all day|every day].")
    s.speak("h", "[In the dark it was somebody else|You were only a {item} all the time"
            "|The dark told me a story, and it was not true].", "happy")
    if s.chance(0.6):
        s.speak("e", "[The dark is only a blanket for the day|The dark puts masks on things"
                "|At night our eyes like to make up stories].", "kind")
    s.one(
        "[After that|From then on], when something [looked strange"
        "|stood there] at night, {h} said, \"Good evening, {item},\" and [slept"
        "|closed {h.his} eyes].",
        "{e} put {light} by the bed, but {h} did not need it for long.",
        "The moon came out and shone into the room, and {h} waved to the {item}.",
        "{h} asked {e} to leave the door open, just a little. The next night {h.he} [forgot to ask"
        "|closed it {h.himself}].",
    )
    s.close("[a thing in the dark is the same thing as by day|it is good to look twice"
            "|what you know does not scare you]", where="bed")


def night_sounds(s: Story) -> None:
    """A sound at night; two wrong guesses; the cause is found and it is a small one."""
    s.hero(traits=("curious", "brave", "quiet", "careful", "clever"))
    s.elder()
    sound, cause, fix = s.pick([
        ("tap, tap, tap", "a branch that the wind knocked against the window",
         "In the morning {e} cut the branch, and {h} got a walking stick from it"),
        ("drip, drop, drip", "the kitchen tap, which was not quite closed",
         "{h} turned it off, and it was quiet"),
        ("scratch, scratch", "a little mouse in the wall, carrying a nut home",
         "{h} wished it a good night"),
        ("hoo, hoo", "an owl on the roof, with eyes like two moons",
         "The owl blinked and flew off without a sound"),
        ("squeak, squeak", "the garden gate, swinging in the wind",
         "{h} tied it with a string, and it was quiet"),
        ("rumble, rumble", "the cat, asleep on the piano and snoring",
         "{h} carried it to its basket"),
        ("ping, ping", "rain that fell through a hole in the roof into a pot",
         "The next day {e} mended the roof, and {h} held the ladder"),
        ("bump, bump", "a shutter that had come loose", "{e} closed it with a hook"),
        ("croak, croak", "a frog that sat in the watering can",
         "{h} carried the can to the pond, and the frog jumped out"),
        ("rattle, rattle", "a marble that rolled back and forth in a drawer",
         "It was the marble that {h} had lost in the summer"),
    ])
    s.roles |= {"sound": sound, "cause": cause, "fix": fix}
    guesses = s.sample("a ghost|a robber|a dragon|a wolf|a witch|a giant|a lion|a pirate", 2)
    s.roles |= {"g1": guesses[0], "g2": guesses[1]}
    s.open(keepsake=False)
    s.tell("One [dark|windy|quiet|cold] night {h} [woke up|could not sleep"
           "|lay awake]. There was a sound: {sound}.")
    s.speak("h", "[What if it is|Is it|Could it be] {g1}?", "scared")
    s.tell("~{h.he} [pulled the blanket up to {h.his} nose|held {h.his} pillow tight"
           "|did not move]. There it was again: {sound}!")
    if s.chance(0.55):
        s.tell("{h} [tiptoed|ran] to {e}, who was [reading|still awake|sewing].")
        s.speak("h", "[I heard something|There's a noise]. I think it's {g2}!", "scared")
        s.speak("e", "[Does {g2} make a sound like that|What would {g2} want in our house"
                "|Have you ever met {g2}]? [Let's go and see|Let's look for it together].", "wise")
    else:
        s.tell("Or {g2}? {h} [counted to three|took a deep breath] and got up. {h.he} took a "
               "[flashlight|candle|lamp] in one {h.hand} and a [spoon|pillow|broom] in the other.")
    s.tell("The sound came from the [kitchen|other room|end of the hall"
           "|other side of the house]. [Step by step|On tiptoe|As quiet as snow], {h} went [closer"
           "|nearer].")
    s.tell("{sound}. And then {h.he} saw it: {cause}!")
    s.speak("h", "[And I was afraid of that|It's not {g1} at all]!", "happy")
    s.tell("{fix}.")
    s.close("[a sound is only scary until you find it|it is better to look than to guess]",
            where="bed")


def cannot_sleep(s: Story) -> None:
    """Three remedies, and the third one works; each has a reason."""
    s.hero()
    s.elder()
    s.let(why="tomorrow was {h.his} birthday|they would go to the sea in the morning"
          "|the bed felt too big|the wind was so loud|the moon was too bright"
          "|{h.he} had slept too long at noon",
          toy="bear|rabbit|dog|elephant|lion")
    s.thing("t", ["toy " + s.roles["toy"]], "gray|brown|white|blue|yellow")
    s.open(keepsake=False)
    s.tell("One [night|evening], {h} could not sleep, because {why}. {h.he} turned to the left. "
           "{h.he} turned to the right.")
    s.speak("h", "{e}, [I can't sleep|sleep won't come|my eyes won't stay shut]!", "sad")
    s.speak("e", "[Have you tried counting sheep|Did you count sheep]?", "kind")
    s.tell("So {h} counted sheep. But the [seventh|ninth|tenth|twelfth] sheep [stopped to eat grass"
           "|would not jump|asked for a drink of water], and {h} [had to wait for it|began to laugh"
           "|was more awake than before].")
    s.speak("e", "[Then drink some warm milk|Here is some warm milk|A little warm milk helps].",
            "kind")
    s.tell("The milk was good. But [now {h} had a white beard and had to look in the mirror"
           "|it was soon gone, and sleep had not come|it made {h.him} think of breakfast].")
    s.para()
    s.tell("{e} [sat down on the bed|lay down beside {h.him}|thought for a while].")
    s.speak("e", "[Your {t} can't sleep either|Look, your {t} is still awake]. Can you [help"
            "|sing to] it?", "wise")
    s.tell("{h} looked at {t.the}. Its eyes were wide open. So {h} [put an arm around it"
           "|tucked it in] and told it a story about [a star that was afraid of heights"
           "|a snail who wanted to fly|a boat made of bread|a cloud that lost its way"
           "|a fish who lived in a tree].")
    s.tell("{h} told it [softly|slowly], and slower, and softer, until [there were no more words"
           "|the story stopped in the middle].")
    s.one(
        "{e} turned off the light. {h} was asleep, and {t.the} lay in {h.his} arms.",
        "When {e} looked in, both were asleep.",
        "Nobody ever heard the end of that story.",
    )
    s.close("[the best way to find sleep is to give it to somebody else"
            "|sleep comes when you stop looking for it]", where="bed")


def baking(s: Story) -> None:
    """Something goes wrong in the kitchen, and the wrong turn becomes part of the cake."""
    s.hero()
    s.elder()
    s.neighbor()
    s.let(what="cake|pie|loaf of bread|plate of cookies",
          kind="apple|honey|carrot|lemon|plum|berry|ginger|nut",
          why="{n.his} birthday|the village fair|{n.his} first day in the new house"
          "|the summer party|a hungry family of seven")
    if s.roles["what"] != "cake" and s.roles["kind"] in ("carrot", "honey"):
        s.roles["kind"] = "apple"
    short = {"loaf of bread": "bread", "plate of cookies": "cookies"}
    s.roles["name"] = "{kind} " + short.get(s.roles["what"], s.roles["what"])
    article = "" if s.roles["name"].endswith(("bread", "cookies")) else "a "
    s.roles["dish"] = article + s.roles["name"]
    it = "they" if s.roles["what"] == "plate of cookies" else "it"
    s.roles |= {"it": it, "was": "were" if it == "they" else "was",
                "them": "them" if it == "they" else "it"}
    s.open()
    s.today("{h} and {e} [wanted to bake|were baking|planned to bake] {dish} for {why}.",
            skies="rainy|sunny|cloudy|snowy")
    s.maybe(0.6, "{h} [cracked the eggs|broke three eggs], {e} [measured the flour"
            "|sifted the flour], and soon there was flour on [every nose"
            "|the table, the floor and the cat|everything].",
            "First came the butter, then [two cups of sugar|a cup of sugar], then the eggs, and "
            "{h} stirred [until {h.his} arm hurt|with a big spoon].",
            "{e} read the recipe aloud, and {h} [found everything"
            "|brought one thing after another].")
    if s.chance(0.6):
        s.speak("h", "[Can I add the sugar|May I do the next part alone|May I taste it]?",
                "excited")
        s.speak("e", "[Of course|Yes, but read first|Go ahead], {dear}.", "kind")
    s.para()
    wrong = s.pick("salt|burn|drop|forgot")
    if wrong == "salt":
        s.tell("{h} took the white jar and [put in|poured in] a whole cup. Then {h.he} licked the "
               "spoon.")
        s.speak("h", "[Ugh|Yuck|Oh no]! [That was salt|It's salt, not sugar]!", "sad")
        s.speak("e", "[The jars look the same|That happened to me, too"
                "|I once did that, too]. [We'll start again|Let's make salty crackers from this "
                "and begin again].", "kind")
        s.tell("This time {h} tasted first. It was sugar. {h.he} [wrote SALT on the other jar"
               "|drew a big S on the salt jar], so that nobody would mix them up again.")
    elif wrong == "burn":
        s.tell("When {it} {was} in the oven, they [played a game|sat down with a book"
               "|went to look at the hens] and forgot the time. {suddenly} {h} [smelled something"
               "|saw smoke].")
        s.speak("h", "[Smoke|It's burning|The oven]!", "excited")
        s.tell("The top was black. {h} [nearly|almost] cried. But {e} [took a knife"
               "|cut off the black part], and underneath the color was golden.")
        s.speak("e", "[A little sugar on top, and nobody will know"
                "|The inside is the best part anyway|We'll cover the rest with cream].", "kind")
    elif wrong == "drop":
        s.tell("{h} carried the bowl to the oven, [tripped over the rug"
               "|stepped on a spoon], and half of it landed on the floor.")
        s.speak("h", "[I spoiled it|Now it's ruined|I'm so clumsy]. [There's not enough left"
                "|I'm sorry].", "sorry")
        s.speak("e", "[Half is left|There is still half]. [Half a bowl makes many small ones"
                "|We'll make it small, and small is sweet].", "wise")
        s.tell("They used the smallest pans they had, and everything came out tiny.")
    else:
        s.tell("They waited and waited, but {it} would not rise. {h} read the recipe again, line "
               "by line.")
        s.speak("h", "[We forgot the baking powder|Here! We forgot the baking powder]. [That's why "
                "it is flat|That's what makes it grow].", "plain")
        s.speak("e",
                "[Well, then it will be a flat one|Flat is also a shape|Then we'll cut out stars].",
                "happy")
        s.tell("They cut {them} into [stars|moons and stars|the shape of fish] and put [cherries"
               "|nuts|cream|berries] on top.")
    s.para()
    s.tell("[In the afternoon|Later], they brought the {name} to {n}. {n.he} took a bite and "
           "[closed {n.his} eyes|was quiet|smiled].")
    s.speak("n", "[This is the best|I never had such good] {name}! [What is your secret"
            "|How did you do that]?", "happy")
    s.tell("~{h} looked at {e}, and both began to laugh.")
    s.close("[it is good to taste before you pour|a mistake is a good teacher]" if wrong == "salt"
            else "[a mistake can be part of the recipe|what goes wrong can still turn out well]",
            where="home")


def the_new_baby(s: Story) -> None:
    """Nobody has time since the baby came; the older one finds what only an older one can do."""
    s.hero(traits=("lively", "cheerful", "playful", "clever", "busy"))
    s.elder()
    baby = s.pick("brother|sister")
    he, him, his = ("he", "him", "his") if baby == "brother" else ("she", "her", "her")
    s.roles |= {"baby": baby, "bhe": he, "bhim": him, "bhis": his}
    s.let(trick="sang the song about the three ducks|made a face like a fish"
          "|put a sock on {h.his} ear|played peekaboo with a towel|quacked like a duck"
          "|hummed like a bee|danced with a spoon on {h.his} nose",
          had="story|game of cards|walk to the park|song before bed")
    s.open(keepsake=False)
    s.tell("[Some weeks ago|In the spring|Not long ago], {h} had got a baby {baby}. [Everyone came "
           "to see the baby|The baby slept and cried, cried and slept"
           "|The baby was very small and very loud].")
    s.today("{h} asked {e} for a {had}, [as before|as always|like in the old days].",
            skies="rainy|cloudy|sunny")
    s.speak("e", "[Not now, {dear}|Later, {dear}|Wait a little, {dear}]. [The baby is hungry"
            "|The baby needs a clean diaper|I have to rock the baby].", "plain")
    s.tell("{h} [waited|sat on the stairs and waited]. Then {h.he} [asked again"
           "|came back]. But it was always the same.")
    s.speak("h", "[Nobody sees me anymore|I wish the baby would go back where it came from"
            "|It's always the baby, the baby, the baby]!", "cross")
    s.para()
    s.tell("[That afternoon|In the evening] the baby cried and would not stop. {e} [tried "
           "everything|tried it all]: the bottle, the blanket, the rattle. Nothing helped.")
    s.tell("{h} [came closer|looked into the crib|looked at the small red face]. Then {h.he} "
           "{trick}. The baby [stopped|was quiet|opened {bhis} eyes wide]. {h} did it again. And "
           "the baby smiled, for the very first time!")
    s.speak("e", "[Look|Look at that]! [That smile is for you|Nobody else could do that"
            "|{bhe} has never smiled before]!", "happy")
    s.speak("h", "~[{bhe} likes me|I did that|{bhe} smiled at me]!", "proud")
    s.tell("{e} put an arm around {h}.")
    s.speak("e", "[Now the baby is asleep|Now it's quiet]. [And now it is your turn"
            "|Now we have time]: one {had}, just for you and me.", "kind")
    s.one("From then on, whenever the baby cried, they called {h}.",
          "Later {h} told the baby, \"[When you are big, I'll teach you everything"
          "|One day you can do it, too].\"")
    s.close("[there is enough love for everyone in the house|a smile can be more useful than a "
            "bottle|the oldest can do things that nobody else can]", where="")


def the_library_book(s: Story) -> None:
    """A borrowed book is spoiled; the truth is told; work makes up for it, and a surprise waits."""
    s.hero()
    s.neighbor("n", "librarian")
    s.let(about="a whale who could sing|a girl who sailed around the world|the moon and the stars"
          "|brave knights|a clever fox|trains|a lost island|all the birds of the forest",
          told="left the book in the rain|spilled cocoa on the book|dropped the book in a puddle"
          "|let the dog chew on the book|tore a page of the book")
    s.open()
    s.tell("{h} had borrowed a book about {about} from the library. {h.he} read it [three times"
           "|under the blanket at night|in the apple tree|at breakfast].")
    s.today("{h.he} [was careless for one moment and|did not pay attention and] {told}.")
    s.speak("h", "{oh}! [What will the librarian say|What do I do now|Can I ever go there again]?",
            "sad")
    s.tell("{h} [tried to clean it|laid it in the sun|pressed it under a heavy pot], but [one "
           "could still see it|it was not the same|that did not help much]. {h.he} thought of "
           "putting it back [on the shelf without a word|secretly].")
    s.tell("But [someone else would open it|{h.he} liked the librarian too much"
           "|that did not feel right]. So {h} [walked|went] to the library with [slow steps"
           "|the book under {h.his} arm].")
    s.speak("h", "I {told}. [I'm very sorry|I want to make it good again|It was my fault].",
            "sorry")
    s.tell("~{n} [put on {n.his} glasses|looked at the book from all sides"
           "|was quiet for a moment].")
    s.speak("n", "[Thank you for telling me|Most people would have said nothing]. [Can you help me "
            "for an hour|Would you like to work for it]? [The shelves are dusty"
            "|All these books have to go back to their places].", "kind")
    s.para()
    s.tell("So {h} [dusted the shelves|carried books|put the books in order, from A to Z]. {h.he} "
           "found books about [dragons and bread|bees and boats|giants and snails"
           "|robots and roses] that {h.he} had never seen.")
    s.one(
        "When the hour was over, {h} did not want to leave. {h.he} came back every [Friday"
        "|Saturday] after that, and not because {h.he} had to.",
        "At the end {n} gave {h.him} the old book. \"We have a new one now,\" {n.he} said. \"This "
        "one has a story of its own. It is yours.\"",
        "Together they mended the book with [tape and glue|a needle and thread]. On the first page "
        "{n} wrote: Mended by {h}.",
    )
    s.close("[it takes courage to say that something was your fault|the truth opens doors]",
            where="home")


def a_letter(s: Story) -> None:
    """A letter asks a question; the answer that comes back fits it."""
    s.hero()
    s.elder(names="Mom|Dad")
    granny = s.pick("f|m")
    if granny == "f":
        s.roles |= {"granny": "grandmother", "far": "Grandma", "her": "her", "she": "she"}
    else:
        s.roles |= {"granny": "grandfather", "far": "Grandpa", "her": "him", "she": "he"}
    asked, sent, back = s.pick([
        ("Is there snow where you live?", "a paper snowflake",
         "a photo of a garden under snow, and the words: Now look out of your window"),
        ("Are you lonely?", "a drawing of the two of them on a bench",
         "a ticket for the train, and the words: Not when you come"),
        ("What did you play when you were small?", "a new marble",
         "an old wooden top, and the words: This was my best friend"),
        ("Do you still have the cat?", "a string for a cat to play with",
         "a paw print in blue ink, and the words: The cat says thank you"),
        ("What does the sea sound like?", "a picture of a ship",
         "a big shell, and the words: Hold it to your ear"),
        ("How do you make your good jam?", "an empty jar",
         "the same jar, full of plum jam, and a recipe"),
        ("Can you see the same moon?", "a silver paper moon",
         "a silver star, and the words: Yes, every night at eight. Look up, and I will look up, "
         "too"),
        ("Do your apples have red cheeks yet?", "an apple made of clay",
         "three real apples wrapped in newspaper, and the words: They do now"),
    ])
    s.roles |= {"asked": asked, "sent": sent, "back": back}
    s.let(days="six|seven|nine|ten|twelve",
          town="on an island|behind the mountains|in a big city|at the other end of the country"
          "|on the other side of the sea")
    s.open()
    s.tell("{h.his} {granny} lived far away, {town}. {h} [missed {her}|thought of {her} often].")
    s.today("{h} [sat down at the table|took a pencil|got out the paper and the pens]. {h.he} "
            "wanted to write a letter, [all alone|with {h.his} best letters].",
            skies="rainy|cloudy|sunny|snowy")
    if s.chance(0.6):
        s.speak("h", "[How do you start a letter|What should I write]?", "plain")
        s.speak("e", "[Ask something you really want to know|Write it as if {she} were sitting here"
                "|Begin with what you think about most].", "kind")
    s.tell('{h} [thought|chewed on the pencil]. Then {h.he} wrote: "Dear {far}, {asked} Love, '
           '{h}." {h.He} put {sent} into the envelope and [licked the stamp'
           '|carried it to the mailbox].')
    s.para()
    s.tell("~Then came the waiting. {h} [ran to the door whenever the mailman came"
           "|looked into the mailbox every morning|asked about it every day]. [One day passed, "
           "then two, then three|Nothing came on Monday, nothing on Tuesday].")
    s.speak("h", "[Maybe it got lost|Maybe my letters were too crooked|I think {far} forgot me].",
            "sad")
    s.speak("e",
            "~[A letter has to travel both ways|A letter walks slowly|Good answers take time].",
            "wise")
    s.tell("After {days} days [there was a small package|the mailman brought a package], with "
           "{h.his} name on it. Inside {h.he} found {back}.")
    s.maybe(0.6, "{h} read it [five times|again and again|until {h.he} knew it by heart].",
            "{h} ran through the whole house to show it.",
            "{h} smiled so much that {h.his} cheeks hurt.")
    s.tell("[That same evening|The same day] {h.he} sat down and wrote again.")
    s.close("[a letter is a way of being together|far away is not so far with a stamp"
            "|good answers take time]", where="")


def a_gift(s: Story) -> None:
    """There is no money for a present; something remembered makes the best one."""
    s.hero(traits=("thoughtful", "kind", "clever", "quiet", "gentle", "busy"))
    s.elder()
    wish, make, use = s.pick([
        ("My feet are always cold in the evening", "a warm cushion filled with cherry stones",
         "put {e.his} feet on the warm cushion"),
        ("I can never find my glasses", "a little box for glasses with a red ribbon on it",
         "put {e.his} glasses into the box"),
        ("I would love to see the stars from my bed", "seven paper stars on a string",
         "hung the stars over the bed"),
        ("I always forget where I stopped reading", "a bookmark with a pressed flower",
         "laid the bookmark into {e.his} book"),
        ("The birds hardly ever come to my window", "a bird house from an old box",
         "saw the first bird move in"),
        ("My tea gets cold so fast", "a wool coat for the teapot",
         "dressed the teapot and laughed"),
        ("This wall is so empty", "a big picture of the whole family",
         "hung the picture in the very middle"),
        ("I miss the sound of the sea", "a chain of shells that clinked in the wind",
         "closed {e.his} eyes and heard the sea"),
        ("I keep losing my keys", "a board with a hook and the word KEYS on it",
         "hung the keys on the hook"),
    ])
    s.roles |= {"wish": wish, "make": make, "use": use}
    s.let(shop="a golden watch|a silk scarf|a big box of chocolate|a silver spoon"
          "|a blue glass vase", coins="two|three|four|five", price="ten|twelve|twenty|thirty")
    s.open(keepsake=False)
    s.tell("{e} would have a birthday in a week, and {h} wanted to give {e.him} something [special"
           "|wonderful].")
    s.tell("In the shop window there was {shop}. It cost {price} coins. {h} had only {coins}.")
    s.speak("h",
            "[That is not nearly enough|I can't buy anything with that|I will never have so much].",
            "sad")
    if s.chance(0.5):
        s.hero("f")
        s.tell("{f.full} heard it.")
        s.speak("f", "[Does it have to be from a shop|Why buy something]? [Just listen to"
                "|Think about] what {e} says.", "plain")
    s.tell("[So|From then on] {h} listened. And [on Tuesday|on Wednesday|at supper"
           "|in the kitchen] {e} [said with a sigh|said to {e.himself}], \"{wish}.\"")
    s.tell("~{h} [jumped up|ran to {h.his} room|had an idea].")
    s.para()
    s.tell("[For three evenings|All week|For two days], {h} worked [behind a closed door|in secret"
           "|in the shed]. {h.he} [glued and cut|cut and tied"
           "|measured and tied], [pricked {h.his} finger|had to start again twice"
           "|got paint on {h.his} nose], and {atlast} it was done: {make}.")
    s.tell("On the birthday {h} [held it out|put it on the table]. {e} unwrapped it {carefully}.")
    s.speak("e", "[How did you know|Did you make this]? [It's just what I need"
            "|Nobody ever made me such a thing|It's perfect].", "happy")
    s.speak("h", "[I listened|You said so yourself|You told me, but you didn't notice]!", "proud")
    s.tell("That very evening, {e} {use}.")
    s.close("[the best presents begin with listening|a gift from the heart costs no coins]",
            where="")


FRAMES = (
    afraid_of_the_dark, night_sounds, cannot_sleep, baking, the_new_baby, the_library_book,
    a_letter, a_gift,
)
