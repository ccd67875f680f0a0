"""The words of the stories: who there is, what there is, where it can be, and how people speak.

A string such as "red|blue|green" is a list of alternatives. The whole corpus keeps to words that a
young child knows.
"""

GIRLS = (
    "Mia|Anna|Lily|Zoe|Nora|Ella|Ruby|Amara|Sofia|Lina|Maya|Yuki|Noor|Rosa|Ivy|Clara|Hana|Leila"
    "|Tara|Emma|Grace|Lucy|Molly|Nina|Olga|Priya|Sara|Wendy|Ada|Bella|Daisy|Freya|Jade|Kim|Lulu|Meg"
    "|Pia|Salma|Tess|Zara"
)
BOYS = (
    "Tom|Ben|Leo|Max|Sam|Omar|Ravi|Kofi|Jack|Finn|Hugo|Mateo|Adam|Noah|Eli|Oscar|Theo|Amir|Dan"
    "|Felix|George|Henry|Ivan|Jamal|Ken|Luca|Milo|Nico|Otto|Paul|Rafi|Simon|Tariq|Victor|Walter|Yan"
    "|Zack|Arlo|Bruno|Diego"
)
ANIMAL_GIRLS = (
    "Hazel|Poppy|Clover|Willow|Dot|Fern|Honey|Juniper|Maple|Minnow|Olive|Pearl|Penny|Rosie|Tansy"
    "|Violet|Bluebell|Cherry|Nutmeg|Tilly|Ginger|Pebble|Sunny|Tulip"
)
ANIMAL_BOYS = (
    "Pip|Bramble|Acorn|Barley|Biscuit|Bumble|Chip|Cricket|Dusty|Fudge|Gus|Moss|Nibble|Oaky|Pepper"
    "|Rusty|Scout|Sprout|Toby|Tuck|Wally|Ziggy|Button|Hopper"
)
ROBOTS = "Bolt|Beep|Tin|Zip|Dash|Pixel|Rivet|Clank|Spark|Gizmo"

# Small animals, so that any two can sit on the same log: kind -> what it has for hands.
ANIMALS = {
    "rabbit": "paw", "mouse": "paw", "fox": "paw", "bear cub": "paw", "squirrel": "paw",
    "hedgehog": "paw", "badger": "paw", "otter": "paw", "cat": "paw", "puppy": "paw",
    "beaver": "paw", "mole": "paw", "raccoon": "paw", "hamster": "paw", "chipmunk": "paw",
    "piglet": "hoof", "lamb": "hoof", "duckling": "wing", "owl": "wing", "goose": "wing",
    "frog": "hand", "monkey": "hand",
}

NUMBERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty",
]

ELDERS = "Mom|Mom|Grandma|Grandma|Aunt Rose|Aunt May|Dad|Dad|Grandpa|Grandpa|Uncle Joe|Uncle Ned"

TRAITS = (
    "sweet|honest|dreamy|merry|polite|eager|calm|bright|helpful|neat|sunny|kind|curious|cheerful"
    "|quiet|clever|playful|gentle|busy|patient|funny|thoughtful|lively|friendly|careful|brave"
)

COLORS = "red|blue|green|yellow|orange|purple|white|brown|pink|golden|silver|gray|black"
BRIGHT = "red|blue|green|yellow|orange|purple|pink|golden"

TOYS = (
    "ball|teddy bear|toy car|toy boat|doll|drum|top|toy train|hat|scarf|mitten|bell|whistle|marble"
    "|ribbon|umbrella|bucket|blanket|button|flute|paintbrush|lunch box|backpack|notebook|toy horse"
    "|puppet|yo-yo|bracelet|cup|crayon"
)
TREASURES = (
    "shell|feather|marble|button|coin|pebble|acorn|bell|ribbon|key|stamp|bead|pinecone|whistle"
)
BREAKABLES = "cup|vase|bowl|plate|teapot|jar|flower pot|mug|lamp|milk jug"
KEEPSAKES = "hat|scarf|cap|coat|bag|cape|sweater|ribbon|backpack|vest"

INDOORS = (
    "under the bed|behind the door|behind the sofa|in the toy box|under the table"
    "|in the basket by the door|on the top shelf|under the pillow|behind the curtain"
    "|under the stairs|in the laundry basket|next to the stove"
)
OUTDOORS = (
    "under the bench|behind the big tree|in the tall grass|next to the pond|under a bush"
    "|beside the path|in a pile of leaves|inside a hollow log|behind the gate"
    "|between the flower pots|at the foot of the hill|behind the shed|near the old well"
    "|under the apple tree"
)

# Where things happen: place -> the word that puts one there.
PLACES = {
    "the garden": "in", "the park": "in", "the forest": "in", "the meadow": "in",
    "the orchard": "in", "the beach": "at", "the playground": "at", "the river": "by",
    "the pond": "by", "the hill": "on", "the farm": "at", "the lake": "by",
}

HOMES = (
    "in a [little|small|tall|white|yellow|cozy|old] house [by the river|near the forest|on a hill"
    "|at the end of the road|next to the park|with a red door|with a green roof|by the sea]"
    "|in a [small|quiet|busy|sunny] [village|town] [by the sea|near the mountains|between two hills"
    "|with a tall clock tower]|on a [small|big|sunny] farm [with many hens|near the river"
    "|with an old barn|under a wide sky]"
)
ANIMAL_HOMES = (
    "in a [little|small|cozy|round|warm] [house|home] [under an oak tree|by the river|near the pond"
    "|at the edge of the forest|in the middle of the meadow|under the old willow"
    "|beside a blue lake]|in a [green|quiet|deep|sunny] [forest|valley] [full of tall trees"
    "|where the river bent|far from any town|with a round pond in the middle]"
)

LOVES = (
    "[to make up stories|to feed the ducks|to swim|to build towers|to whistle|to watch the rain"
    "|to roll down hills|to pick flowers|to write letters|to look for treasure|to paint"
    "|to fix things|to play ball|to guess riddles|to watch the stars|to eat pancakes"
    "|to smell the flowers|to draw|to sing|to climb|to dance|to ask questions|to make things"
    "|to tell jokes|to read|to look at clouds|to collect [shells|stones|leaves|feathers|buttons]"
    "|to help in the garden|to play outside|to count things|to hum little songs|to watch the birds"
    "|to run in the wind|to bake|to splash in puddles]"
)

SKIES = {
    "sunny": "sunny|bright|warm|clear|fine",
    "cloudy": "cloudy|gray|cool|quiet",
    "windy": "windy|breezy|blowy",
    "rainy": "rainy|wet|gray and rainy",
    "snowy": "snowy|cold and white|frosty",
}
AMBIENT = {
    "sunny": "the sun was [warm|shining|high in the sky]|birds were singing [in the trees"
    "|on the roof]|the sky was [blue|clear]|bees hummed [in the clover|around the flowers]"
    "|the grass smelled [sweet|fresh|of summer]|there was not a cloud [to be seen|in the sky]"
    "|the [cat|dog] slept in the [warm|bright] light|the shadows were [short|blue] and the [road"
    "|grass] was [dry|warm]|everything [shone|seemed new]|somebody was [singing|whistling] far away"
    "|the windows stood open|the wash was drying on the line",
    "cloudy": "soft gray clouds [hung|sat] over the [hills|trees|roofs]|the air was [cool|still"
    "|soft]|the sun [peeked|looked] out between the clouds|the clouds looked like [sheep|pillows"
    "|big gray cats|ships]|the sky was [low|white|as gray as a mouse]|it smelled [of earth|of rain"
    "|of leaves]|the birds were [quiet|flying low]|nobody knew if it would rain|smoke [rose"
    "|went up] from the chimneys",
    "windy": "the wind [pushed|chased] the leaves [along|around]|the trees [waved"
    "|bent and waved] their branches|every hat had to be held tight|the wind [sang"
    "|whistled] around the [corners|roofs]|the [gate|door] [banged|would not stay shut]|clouds [ran"
    "|raced] over the sky|the grass [bent|moved like water]|a [sock|shirt] flew off the line",
    "rainy": "rain [tapped|drummed] on the [roof|leaves|windows]|there were puddles [everywhere"
    "|all along the road]|drops ran down [the windows|every leaf]|everything was [wet"
    "|shiny and wet]|the gutters [sang|gurgled]|the ducks were happy and nobody else"
    "|the road had turned to [mud|a little river]",
    "snowy": "snow lay [on every roof|on every branch|on the ground like a blanket]"
    "|the air was [cold|crisp] and still|every breath made a little cloud|everything was [white"
    "|white and quiet]|the snow creaked under every step|ice [shone|glittered] on the [windows"
    "|pond]",
}
SIGHTS = {
    "warm": "[a|one] [yellow|white|blue|orange] butterfly|two [slow|tiny|sleepy] snails"
    "|a row of [busy|black] ants|a [green|brown] frog on a stone|a [fat|sleepy] bee in a flower"
    "|a bird with a twig in its beak|three [white|brown] ducks|a spider web full of [light|drops]"
    "|a [gray|black] cat on a wall|a [red|yellow] leaf turning in the air|a [shiny|spotted] beetle"
    "|a [long|lazy] line of geese in the sky",
    "cold": "tiny bird tracks|a [robin|sparrow] on a branch|a long icicle|a [gray"
    "|black] cat in a window|smoke over the roofs|a pinecone with a cap of snow|[deer"
    "|rabbit] tracks",
}

# How people speak: what the verb is, what they do, and what they do first, by mood.
SAID = {
    "plain": {".": "said", "?": "asked", "!": "said|called"},
    "happy": {".": "said", "?": "asked", "!": "cried|called|said|shouted"},
    "excited": {".": "said|called", "?": "asked|cried", "!": "cried|shouted|called"},
    "sad": {".": "said|whispered", "?": "asked|whispered", "!": "cried|said"},
    "kind": {".": "said", "?": "asked", "!": "said"},
    "scared": {".": "whispered|said", "?": "whispered|asked", "!": "cried|called"},
    "proud": {".": "said", "?": "asked", "!": "said|called|cried"},
    "shy": {".": "said|whispered", "?": "asked|whispered", "!": "said"},
    "cross": {".": "said|grumbled", "?": "asked|grumbled", "!": "shouted|said|cried"},
    "wise": {".": "said", "?": "asked", "!": "said"},
    "sorry": {".": "said|whispered", "?": "asked|whispered", "!": "said"},
}
MANNER = {
    "plain": "||||||after a moment|right away|and waited|and looked up",
    "happy": "|||happily|with a [big|wide|happy] smile|with a laugh|and laughed|in a bright voice"
    "|and clapped {x.his} {x.hands}|merrily|with a happy little jump|and beamed",
    "excited": "|||with shining eyes|in an excited voice|and jumped up|as fast as {x.he} could"
    "|out of breath|and pointed|with big eyes",
    "sad": "|||sadly|in a small voice|with tears in {x.his} eyes|quietly|and sighed|and looked away"
    "|with a long sigh|in a low voice|and wiped {x.his} nose",
    "kind": "|||kindly|gently|softly|warmly|in a soft voice|with a smile|and smiled|in a warm voice"
    "|with kind eyes|and nodded",
    "scared": "||in a shaky voice|in a tiny voice|with wide eyes|and shivered|in a low voice"
    "|and held {x.his} breath|with a pale nose",
    "proud": "|||proudly|with a proud smile|and stood up straight|with {x.his} nose in the air"
    "|in a loud, clear voice|and beamed",
    "shy": "||shyly|in a low voice|very quietly|and looked down|and turned a little red"
    "|so softly that one could hardly hear it",
    "cross": "|||crossly|with a frown|in a loud voice|and stamped one foot|and turned away"
    "|in an angry voice|with both arms crossed",
    "wise": "|||slowly|calmly|with a wink|with a smile|after a while|in a quiet voice|and nodded"
    "|with a twinkle in {x.his} eye",
    "sorry": "|||quietly|in a small voice|with {x.his} head down|and swallowed"
    "|and looked at the floor|in a low voice|with red ears",
}
BEATS = {
    "plain": "looked up|turned around|nodded|thought for a moment|waited a moment"
    "|tilted {x.his} head|scratched {x.his} head|looked from side to side|rubbed {x.his} nose"
    "|raised one {x.hand}",
    "happy": "smiled|laughed|grinned|beamed|clapped {x.his} {x.hands}|did a little dance"
    "|jumped for joy|spun around once|hummed|gave a little cheer",
    "excited": "jumped up|hopped up and down|pointed|could not stand still"
    "|clapped {x.his} {x.hands}|spun around|waved both {x.hands}|gasped",
    "sad": "sighed|looked down|sniffed|wiped away a tear|hung {x.his} head|swallowed a sob"
    "|stared at the floor|bit {x.his} lip|sat down",
    "kind": "smiled|nodded|bent down|smiled a little|leaned forward|put {x.his} head to one side"
    "|waited a little|took {x.his} time",
    "scared": "shivered|swallowed hard|took a small step back|trembled|held {x.his} breath"
    "|looked around|turned pale|made {x.himself} small",
    "proud": "stood up tall|beamed|lifted {x.his} chin|smiled|took a small bow"
             "|put both {x.hands} on {x.his} hips",
    "shy": "looked down at {x.his} feet|stood very still|took a shy step closer|waited a moment"
    "|cleared {x.his} throat|turned red|looked up",
    "cross": "frowned|stamped one foot|turned away|shook {x.his} head|crossed {x.his} arms"
    "|made a sour face|kicked a stone|groaned",
    "wise": "smiled|nodded slowly|thought for a moment|looked up at the sky|rubbed {x.his} chin"
    "|closed one eye|winked|was quiet for a while",
    "sorry": "looked down|took a deep breath|swallowed hard|came closer with slow steps|sniffed"
    "|stood very still|turned red|looked at the floor",
}

# Small pools for one slot of a sentence. Within a story an alternative is not used twice while
# others remain.
POOLS = {
    "glad": "happy|glad|pleased|delighted|full of joy|very happy|so happy",
    "sad": "sad|unhappy|upset|gloomy|very sad|low",
    "scared": "scared|afraid|frightened|nervous|uneasy",
    "tired": "tired|sleepy|worn out|very tired",
    "proud": "proud|very proud|as proud as could be|proud and happy",
    "ran": "ran|hurried|raced|dashed|rushed",
    "walked": "walked|went|strolled|wandered|skipped",
    "smiled": "smiled|grinned|beamed|smiled a big smile|smiled from ear to ear",
    "laughed": "laughed|giggled|laughed out loud|burst out laughing|chuckled",
    "soon": "soon|before long|after a while|a little later|in no time|a short time later",
    "then": "then|after that|next",
    "atlast": "at last|finally|in the end",
    "suddenly": "suddenly|all at once|just then|at that moment|all of a sudden",
    "big": "big|large|huge|great",
    "small": "small|little|tiny",
    "lovely": "lovely|wonderful|beautiful|fine|splendid",
    "carefully": "carefully|gently|slowly|with great care|little by little",
    "thanks": "Thank you|Thank you so much|Oh, thank you|Thanks|Thank you very much|Many thanks",
    "agreed": "Yes, let's|That is a good idea|Good idea|Of course|Yes|All right|That sounds good",
    "oh": "Oh no|Oh dear|Oh my|Dear me",
    "wow": "Wow|Look|Oh|Hooray|My goodness",
    "dear": "sweetheart|my dear|little one|dear",
    "fruit": "apple|pear|plum|peach|banana|orange",
    "fruits": "apples|pears|plums|peaches|cherries|berries|nuts",
    "treat": "honey cake|jam bun|apple pie|ginger cookie|piece of bread with honey"
    "|slice of plum cake|oat cookie|berry tart",
    "supper": "vegetable soup|pancakes|warm bread and cheese|noodles|potato soup|tomato soup"
    "|rice and beans|corn bread",
    "drink": "warm milk|apple juice|cool water|berry tea|hot cocoa|lemonade",
}

# Everyday words that can replace each other wherever the templates use them; longer phrases come
# first.
SYNONYMS = {
    "the very": "the very",
    "came running up": "came running up",
    "That very": "That very",
    "all at once": "all at once",
    "cried at once": "cried at once",
    "both at once": "both at once",
    "at once": "at once|right away",
    "the only": "the only|the one",
    "only": "only|only|just",
    "next to": "next to|beside",
    "From then on": "From then on|After that|From that day on|Ever after",
    "a big": "a big|a big|a great big",
    "all the way": "all the way|the whole way",
    ", because": ", because|, for|, since",
    "had never": "had never|never had",
    "in front of": "in front of|right in front of",
    "the whole day": "the whole day|all day long",
    "in the middle of": "in the middle of|right in the middle of",
    "came back": "came back|returned|came back",
    "And then": "And then|Then",
    "And really": "And really|And indeed|And sure enough",
    "a while": "a while|some time|a little while",
    "for an hour": "for an hour|for a whole hour|for two hours",
    "so that": "so that|so",
    "They began": "They began|They started",
    "jumped up": "jumped up|leaped up",
    "went home": "went home|walked home",
    "listened": "listened|listened|listened carefully",
    "began to": "began to|started to",
    "nobody": "nobody|no one",
    "Nobody": "Nobody|No one",
    "somebody": "somebody|someone",
    "Somebody": "Somebody|Someone",
    "everyone": "everyone|everybody",
    "Everyone": "Everyone|Everybody",
    "not nearly": "not nearly",
    "nearly": "nearly|almost",
    "almost": "almost|nearly",
    "did not": "did not|didn't",
    "could not": "could not|couldn't",
    "was not": "was not|wasn't",
    "would not": "would not|wouldn't",
    "had not": "had not|hadn't",
    "looked at": "looked at|looked at|gazed at",
    "a small": "a small|a little|a tiny",
    "for a moment": "for a moment|for a second|for a little while",
    "nodded": "nodded|nodded|gave a nod",
    "sighed": "sighed|gave a sigh|sighed deeply",
    "smiled": "smiled|smiled|grinned|gave a smile",
    "loved": "loved|loved|really loved",
    "hugged": "hugged|hugged|threw both arms around",
    "until": "until|till|until",
    "for a long time": "for a long time|for a good while|for quite a while|a long time",
    "again and again": "again and again|over and over|over and over again|time after time",
    "took a deep breath": "took a deep breath|drew a deep breath|breathed in and out"
                          "|took one long breath",
    "came by": "came by|came along|passed by",
    "out loud": "out loud|aloud",
    "Maybe": "Maybe|Perhaps",
    "had an idea": "had an idea|got an idea|had a good idea|had a thought",
    "very": "very|very|really",
    "thought for a moment": "thought for a moment|thought it over|thought about it|thought hard",
    "had to laugh": "had to laugh|could not help laughing|laughed|began to laugh",
    "began to laugh": "began to laugh|started to laugh|laughed|had to laugh",
    "The next day": "The next day|The day after|The next morning|One day later",
    "that evening": "that evening|that night",
    "In the evening": "In the evening|At the end of the day|When evening came",
    "At the end": "At the end|In the end|When it was over",
    "came running": "came running|ran up|hurried over",
    "looked around": "looked around|looked about|looked left and right",
    "It worked": "It worked|It really worked",
    "all day": "all day|the whole day",
    "the whole time": "the whole time|all along",
    "at home": "at home|back home",
    "I'm sorry": "I'm sorry|I am sorry|I'm really sorry",
    "of course": "of course|naturally|as you might guess",
    "a little sad": "a little sad|a bit sad",
    "wonderful": "wonderful|great|lovely",
    "laughed out loud": "laughed out loud|roared with laughter",
    "At first": "At first|In the beginning|To begin with",
    "wanted to": "wanted to|wished to|wanted to",
    "took hold": "took hold|grabbed on|held on tight",
    "every day": "every day|each day|day after day",
    "every morning": "every morning|each morning|morning after morning",
    "I can't": "I can't|I cannot",
    "But then": "But then|But then|Then, however,",
    "once more": "once more|one more time|again",
}
