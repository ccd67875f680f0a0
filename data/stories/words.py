"""The words the stories are made of: who there is, what there is, where it can be, and how people speak.

A string such as "red|blue|green" is a list of alternatives. The whole corpus keeps to words a young child knows.
"""

GIRLS = (
    "Mia|Anna|Lily|Zoe|Nora|Ella|Ruby|Amara|Sofia|Lina|Maya|Yuki|Noor|Rosa|Ivy|Clara|Hana|Leila|Tara|Emma|Grace|Lucy"
    "|Molly|Nina|Olga|Priya|Sara|Wendy|Ada|Bella|Daisy|Freya|Jade|Kim|Lulu|Meg|Pia|Salma|Tess|Zara"
).split("|")
BOYS = (
    "Tom|Ben|Leo|Max|Sam|Omar|Ravi|Kofi|Jack|Finn|Hugo|Mateo|Adam|Noah|Eli|Oscar|Theo|Amir|Dan|Felix|George|Henry"
    "|Ivan|Jamal|Ken|Luca|Milo|Nico|Otto|Paul|Rafi|Simon|Tariq|Victor|Walter|Yan|Zack|Arlo|Bruno|Diego"
).split("|")
ANIMAL_GIRLS = (
    "Hazel|Poppy|Clover|Willow|Dot|Fern|Honey|Juniper|Maple|Minnow|Olive|Pearl|Penny|Rosie|Tansy|Violet|Bluebell|Cherry"
    "|Nutmeg|Tilly|Ginger|Pebble|Sunny|Tulip"
).split("|")
ANIMAL_BOYS = (
    "Pip|Bramble|Acorn|Barley|Biscuit|Bumble|Chip|Cricket|Dusty|Fudge|Gus|Moss|Nibble|Oaky|Pepper|Rusty|Scout|Sprout"
    "|Toby|Tuck|Wally|Ziggy|Button|Hopper"
).split("|")
ROBOTS = "Bolt|Beep|Tin|Zip|Dash|Pixel|Rivet|Clank|Spark|Gizmo".split("|")

# Small animals, so that any two can sit on the same log: kind -> what it has for hands.
ANIMALS = {
    "rabbit": "paw", "mouse": "paw", "fox": "paw", "bear cub": "paw", "squirrel": "paw", "hedgehog": "paw",
    "badger": "paw", "otter": "paw", "cat": "paw", "puppy": "paw", "beaver": "paw", "mole": "paw", "raccoon": "paw",
    "hamster": "paw", "chipmunk": "paw", "piglet": "hoof", "lamb": "hoof", "duckling": "wing", "owl": "wing",
    "goose": "wing", "frog": "hand", "monkey": "hand",
}  # fmt: skip

ELDERS = "Mom|Mom|Grandma|Grandma|Aunt Rose|Aunt May|Dad|Dad|Grandpa|Grandpa|Uncle Joe|Uncle Ned"

TRAITS = (
    "kind|curious|cheerful|quiet|clever|playful|gentle|busy|patient|funny|thoughtful|lively|friendly|careful|brave"
).split("|")

COLORS = "red|blue|green|yellow|orange|purple|white|brown|pink|golden|silver|gray|black".split("|")
BRIGHT = "red|blue|green|yellow|orange|purple|pink|golden".split("|")

TOYS = (
    "ball|teddy bear|toy car|toy boat|doll|drum|top|toy train|hat|scarf|mitten|bell|whistle|marble|ribbon|umbrella|bucket"
    "|blanket|button|flute|paintbrush|lunch box|backpack|notebook|toy horse|puppet|yo-yo|bracelet|cup|crayon"
).split("|")
TREASURES = "shell|feather|marble|button|coin|pebble|acorn|bell|ribbon|key|stamp|bead|pinecone|whistle".split("|")
BREAKABLES = "cup|vase|bowl|plate|teapot|jar|flower pot|mug|lamp|milk jug".split("|")
KEEPSAKES = "hat|scarf|cap|coat|bag|cape|sweater|ribbon|backpack|vest".split("|")

INDOORS = (
    "under the bed|behind the door|behind the sofa|in the toy box|under the table|in the basket by the door"
    "|on the top shelf|under the pillow|behind the curtain|under the stairs|in the laundry basket|next to the stove"
).split("|")
OUTDOORS = (
    "under the bench|behind the big tree|in the tall grass|next to the pond|under a bush|beside the path"
    "|in a pile of leaves|inside a hollow log|behind the gate|between the flower pots|at the foot of the hill"
    "|behind the shed|near the old well|under the apple tree"
).split("|")

# Where things happen: place -> the word that puts one there.
PLACES = {
    "the garden": "in", "the park": "in", "the forest": "in", "the meadow": "in", "the orchard": "in", "the beach": "at",
    "the playground": "at", "the river": "by", "the pond": "by", "the hill": "on", "the farm": "at", "the lake": "by",
}  # fmt: skip

HOMES = (
    "in a [little|small|tall|white|yellow|cozy|old] house [by the river|near the forest|on a hill|at the end of the road"
    "|next to the park|with a red door|with a green roof|by the sea]"
    "|in a [small|quiet|busy|sunny] [village|town] [by the sea|near the mountains|between two hills|with a tall clock tower]"
    "|on a [small|big|sunny] farm [with many hens|near the river|with an old barn|under a wide sky]"
)
ANIMAL_HOMES = (
    "in a [little|small|cozy|round|warm] [house|home] [under an oak tree|by the river|near the pond|at the edge of the forest"
    "|in the middle of the meadow|under the old willow|beside a blue lake]"
    "|in a [green|quiet|deep|sunny] [forest|valley] [full of tall trees|where the river bent|far from any town"
    "|with a round pond in the middle]"
)

LOVES = (
    "[to draw|to sing|to climb|to dance|to ask questions|to make things|to tell jokes|to read|to look at clouds"
    "|to collect [shells|stones|leaves|feathers|buttons]|to help in the garden|to play outside|to count things"
    "|to hum little songs|to watch the birds|to run in the wind|to bake|to splash in puddles]"
)

SKIES = {
    "sunny": "sunny|bright|warm|clear|fine",
    "cloudy": "cloudy|gray|cool|quiet",
    "windy": "windy|breezy|blowy",
    "rainy": "rainy|wet|gray and rainy",
    "snowy": "snowy|cold and white|frosty",
}
AMBIENT = {
    "sunny": "the sun was [warm|shining|high in the sky]|birds were singing [in the trees|on the roof]"
    "|the sky was [blue|clear|as blue as a plum]|bees hummed [in the clover|around the flowers]"
    "|the grass smelled [sweet|fresh|of summer]|there was not a cloud [to be seen|in the sky]",
    "cloudy": "soft gray clouds [hung|sat] over the [hills|trees|roofs]|the air was [cool|still|soft]"
    "|now and then the sun [peeked out|looked out] between the clouds|the clouds looked like [sheep|pillows|big gray cats]",
    "windy": "the wind [pushed|chased] the leaves [along|around]|the trees [waved|bent and waved] their branches"
    "|every hat had to be held with one hand|the wind [sang|whistled] around the [corners|roofs]",
    "rainy": "rain [tapped|drummed] on the [roof|leaves|windows]|there were puddles [everywhere|all along the road]"
    "|drops ran down [the windows|every leaf]|everything was [wet|shiny and wet]",
    "snowy": "snow lay [on every roof|on every branch|on the ground like a blanket]|the air was [cold|crisp] and still"
    "|every breath made a little cloud|everything was [white|white and quiet]",
}
SIGHTS = {
    "warm": "[a|one] [yellow|white|blue|orange] butterfly|two [slow|tiny|sleepy] snails|a row of [busy|black] ants"
    "|a [green|brown] frog on a stone|a [fat|sleepy] bee in a flower|a bird with a twig in its beak|three [white|brown] ducks"
    "|a spider web full of [light|drops]|a [gray|black] cat on a wall|a [red|yellow] leaf turning in the air"
    "|a [shiny|spotted] beetle|a [long|lazy] line of geese in the sky",
    "cold": "tiny bird tracks|a [robin|sparrow] on a branch|a long icicle|a [gray|black] cat in a window|smoke over the roofs"
    "|a pinecone with a cap of snow|[deer|rabbit] tracks",
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
    "wise": {".": "said|answered", "?": "asked", "!": "said"},
    "sorry": {".": "said|whispered", "?": "asked|whispered", "!": "said"},
}
MANNER = {
    "plain": "|||",
    "happy": "|||happily|with a [big|wide|happy] smile|with a laugh",
    "excited": "|||with shining eyes|in an excited voice",
    "sad": "|||sadly|in a small voice|with tears in {x.his} eyes|quietly",
    "kind": "|||kindly|gently|softly|warmly|in a soft voice|with a smile",
    "scared": "||in a shaky voice|in a tiny voice|with wide eyes",
    "proud": "|||proudly|with a proud smile",
    "shy": "||shyly|in a low voice|very quietly",
    "cross": "|||crossly|with a frown|in a loud voice",
    "wise": "|||slowly|calmly|with a wink|with a smile",
    "sorry": "|||quietly|in a small voice|with {x.his} head down",
}
BEATS = {
    "plain": "looked up|turned around|nodded|thought for a moment|waited a moment|tilted {x.his} head",
    "happy": "smiled|laughed|grinned|beamed|clapped {x.his} {x.hands}|did a little dance",
    "excited": "jumped up|hopped up and down|pointed|could not stand still|clapped {x.his} {x.hands}|spun around",
    "sad": "sighed|looked down|sniffed|wiped away a tear|hung {x.his} head|swallowed a sob",
    "kind": "smiled|nodded|bent down|smiled a little|leaned forward",
    "scared": "shivered|swallowed hard|took a small step back|trembled|held {x.his} breath",
    "proud": "stood up tall|beamed|lifted {x.his} chin|smiled",
    "shy": "looked down at {x.his} feet|stood very still|took a shy step closer|waited a moment",
    "cross": "frowned|stamped one foot|turned away|shook {x.his} head",
    "wise": "smiled|nodded slowly|thought for a moment|looked up at the sky|rubbed {x.his} chin",
    "sorry": "looked down|took a deep breath|swallowed hard|came closer with slow steps|sniffed",
}

# Small pools for one slot of a sentence. Within a story an alternative is not used twice while others remain.
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
    "treat": "honey cake|jam bun|apple pie|ginger cookie|piece of bread with honey|slice of plum cake|oat cookie|berry tart",
    "supper": "vegetable soup|pancakes|warm bread and cheese|noodles|potato soup|tomato soup|rice and beans|corn bread",
    "drink": "warm milk|apple juice|cool water|berry tea|hot cocoa|lemonade",
}
