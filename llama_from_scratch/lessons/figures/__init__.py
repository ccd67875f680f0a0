"""Still pictures, all with one look.

    look         colors, sizes and fonts; a figure as a PNG
    matrices     grid, grids: heat maps with named axes
    boxes        tokens: a text cut into tokens
    losses       plot_losses: the curves of training runs
    measured     draw: what the kernels took on real GPUs
    flow         Drawing: how data flows, in boxes and arrows
    architecture, rotation, learning   drawings of a model's parts and of a training step
    cache, dialogs, generations, heads, norms, packing, parameters, rates, tokenizing, widths,
    writing      more of them
"""

from llama_from_scratch.lessons.figures import architecture as architecture
from llama_from_scratch.lessons.figures import cache as cache
from llama_from_scratch.lessons.figures import dialogs as dialogs
from llama_from_scratch.lessons.figures import generations as generations
from llama_from_scratch.lessons.figures import heads as heads
from llama_from_scratch.lessons.figures import learning as learning
from llama_from_scratch.lessons.figures import norms as norms
from llama_from_scratch.lessons.figures import packing as packing
from llama_from_scratch.lessons.figures import parameters as parameters
from llama_from_scratch.lessons.figures import rates as rates
from llama_from_scratch.lessons.figures import rotation as rotation
from llama_from_scratch.lessons.figures import tokenizing as tokenizing
from llama_from_scratch.lessons.figures import widths as widths
from llama_from_scratch.lessons.figures import writing as writing
from llama_from_scratch.lessons.figures.boxes import letters as letters
from llama_from_scratch.lessons.figures.boxes import token_boxes as token_boxes
from llama_from_scratch.lessons.figures.boxes import tokens as tokens
from llama_from_scratch.lessons.figures.look import BLACK as BLACK
from llama_from_scratch.lessons.figures.look import BLUE as BLUE
from llama_from_scratch.lessons.figures.look import CLEAR as CLEAR
from llama_from_scratch.lessons.figures.look import COLOURS as COLOURS
from llama_from_scratch.lessons.figures.look import GREEN as GREEN
from llama_from_scratch.lessons.figures.look import ORANGE as ORANGE
from llama_from_scratch.lessons.figures.look import PINK as PINK
from llama_from_scratch.lessons.figures.look import RED as RED
from llama_from_scratch.lessons.figures.look import SIGNED as SIGNED
from llama_from_scratch.lessons.figures.look import SKY as SKY
from llama_from_scratch.lessons.figures.look import TINTS as TINTS
from llama_from_scratch.lessons.figures.look import YELLOW as YELLOW
from llama_from_scratch.lessons.figures.look import hatch_hidden as hatch_hidden
from llama_from_scratch.lessons.figures.look import png as png
from llama_from_scratch.lessons.figures.look import style as style
from llama_from_scratch.lessons.figures.matrices import grid as grid
from llama_from_scratch.lessons.figures.matrices import grids as grids
