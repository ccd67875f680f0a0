"""Still pictures, all in the same style.

    look         colors, sizes and fonts; a figure as a PNG
    matrices     grid, grids: heat maps with named axes
    boxes        tokens: a text cut into tokens
    losses       plot_losses: the curves of training runs
    measured     draw: times of the kernels on real GPUs
    flow         Drawing: how data flows, in boxes and arrows
    measuring    shapes_of: the shapes in a run of a real module

The drawings are listed below by chapter. Each is made from real objects. Every function returns a
figure whose label says in one or two sentences what to see; its docstring has an example of the
call.

    09  experiments.tree                   an experiment, its variants, their runs by seed
        experiments.path                   what a run goes through, and what is kept
    10  tokenizing.text_to_ids             a text's pieces, bytes, tokens and ids, below each other
        tokenizing.merge_tree              one word's merges as a tree, in their order
    11  norms.rms_norm                     square, mean, root, division and weight, with shapes
        norms.in_model                     where the norms are, and the sizes of their inputs
    12  rotation.pairs                     pairs of channels as hands, at near and far positions
        rotation.in_layer                  q and k are turned before the cache, v is not
    13  architecture.attention             from x through q, k, v and the heads to wo
        heads.groups                       which key/value head each query head reads
        cache.grows                        what is new and what is kept in three steps (also 16)
    14  architecture.feed_forward          SwiGLU with shapes
        widths.classic_and_gated           two matrices or three, to scale, with their weights
    15  architecture.text_to_vectors       from text to rows of the embedding
        architecture.model                 the residual stream as a road
        generations.parts                  what changed in each part from model to model
    16  writing.loop                       ids, logits, filters, draw, append, stop
        writing.prefill_and_decode         the tokens that each pass over the weights reads
    17  learning.training_step             one step with its real numbers
        packing.windows                    documents in windows, with targets one token later
        rates.schedule                     the learning rate of every step
    18  stored.parameters                  one parameter's name in each format
        stored.file_bytes                  the layout of a safetensors file
    19  turns.one_list                     a chat's turns as one list of ids
        turns.round_trip                   the steps from one message to the next
        dialogs.turns                      any list of ids, colored by who speaks
        dialogs.tool_loop                  prompts, calls and results, from top to bottom
    20  tiles.on_canvas                    an image on its canvas, and its tiles apart
        tiles.own_size                     an image's size, and the same on its canvas
        tiles.canvases                     every canvas with its aspect ratio id
        tiles.plane                        which canvas an image of each size gets
        tiles.road                         the steps from a file to the tensor, with real sizes
        tiles.batch                        which slots of a batch hold tiles
        tiles.pictures                     images side by side, each under its name
        tiles.gallery                      tiles as pictures, one canvas for each id
    21  encoder.stages                     from tiles to states, with the shapes of a config
        encoder.layers                     a local layer, and a global one with its gates
        encoder.features                   the order in which states are put side by side
    22  adapter.model                      text layers, and the blocks that look at an image
        adapter.block                      one of these blocks, with its gates
        adapter.sight                      which tiles of which images each token sees
    23  experts.layer                      where one token goes among the experts of a layer
        experts.sorted_tokens              tokens in the order of the text, and sorted by expert
    24  llama4.sight                       what one token sees in each layer
        llama4.masks                       the masks with chunks and without
        llama4.query_growth                how long queries become at far positions
        fusion.image_text                  an image as a list of tokens
        fusion.pixel_shuffle               which patches become one token
        fusion.tile_rope                   how patches are turned by column and row
        fusion.image_size                  an image of any size: its canvas and its tokens
    25  stretching.turns                   how far pairs turn, and which angles are new
        stretching.needles                 maps of needles found, by length and depth
        stretching.distances               how far back a text has to be read
        stretching.bits                    bits per byte against the position
    30  machine.threads                    blocks, warps, lanes, and the numbers that they hold
        machine.memory                     the memories of a GPU, their sizes and speeds
    31  rungs.owners                       which thread reads which number (also 30, 32, 36)
        rungs.first_access                 what a warp reads at once, rung by rung (also 30, 32, 36)
        moving.plain_and_fused             bytes of plain operations and of a kernel (also 32, 36)
    33  streaming.states                   the state of an online softmax after each tile
        streaming.joined                   partial results, joined by their log-sum-exp
        streaming.tiles                    which tiles of scores a kernel computes
    34  logits.over_time                   the memory of a loss after each of its operations
        logits.passes                      how often a row of logits crosses the memory bus
    35  decoding.roofline                  how fast products of 1, 8 and 256 rows can be
        decoding.unpacking                 two numbers of 4 bits become bf16, bit by bit
        decoding.splits                    which processors read a long cache
    36  all_kernels.roofline               what bounds every kernel of the course
    37  fragments.owners                   which lane holds which number of a matrix
        banks.tile                         a tile in shared memory, bank by bank
        pipeline.draw                      what is on its way, and what is computed
    40  ring.steps                         which piece each rank sends to the next, step by step
        ring.messages                      who sends to whom, when
        timeline.draw                      what each rank did, from the real logs (also 41 to 43)
    41  data_parallel.replicas             which rows each rank reads, and the sum of the gradients
        data_parallel.buckets              which gradients travel together, in their order
    42  shards.buffer                      a flat buffer, and the rank that owns each element
        shards.owners                      what each rank keeps, stage by stage
        shards.memory                      bytes on a rank, as bars
    43  slices.held                        which rank holds which slice of each matrix
        slices.block                       a block on two ranks, and what they send
    44  pieces.on_ranks                    which layers each rank of a pipeline has
        schedules.draw                     what the ranks of a pipeline do, and what they keep
    45  context.pieces                     which tokens of a row each rank holds, and its work
        context.sight                      the mask of a row, by the rank that computes it
        context.steps                      what each rank computes in each step of a ring
    46  traffic.travel                     rows of each rank, and where they arrive
        traffic.matrix                     how many rows go from each rank to each
    47  mesh.ranks                         the ranks of a mesh, and the groups of one of them
        mesh.sent                          the bytes that a rank sends to each of its groups
        manifests.held                     which file of a checkpoint holds which elements
        interruptions.causes               what interrupted the training of Llama 3 405B
        interruptions.useful_time          how much time remains useful, by interval of saves
    50  answers.learned                    the tokens of a dialog, colored if they are learned
        answers.rows                       dialogs as padded and as packed rows
        answers.shares                     shares with their standard errors
        answers.held_out                   which owner never has which thing in training
        studies.methods                    what methods reached, with all seeds (to 54, 57, 58)
    51  low_rank.layer                     a frozen matrix and two thin ones, to scale
        low_rank.spectra                   how many directions hold a change
    52  judging.pair_loss                  how often the chosen answer wins, and the loss of a pair
        judging.places                     where the reward of each row is read
        judging.best_of_n                  the best of n by true score, and by the judge's own
    53  margins.losses                     the loss of a pair, and how hard it pulls
        margins.course                     where both log-probabilities go in training
    54  rewarding.group                    answers to one prompt, their rewards and advantages
        rewarding.curves                   the mean reward of each step
        rewarding.clip                     the clipped gain against the ratio
        rewarding.baseline                 a baseline changes the noise, not the mean
    55  calling.exchange                   who says what to whom: user, assistant, tool
        calling.syntax                     the tree of a call's text, and what is refused in it
    56  agents.budgets                     what a run uses up of its budgets
        agents.attacks                     which attacks succeed, by phrasing and place
    57  refusals.deeds                     which deeds are harmful, and which are never trained
        refusals.curves                    violations against false refusals, by threshold
    58  programs.tested                    which program passes which test
        programs.pass_curves               how likely one of k programs is right
    59  explaining.parts                   what methods say about each sentence
        explaining.lens                    the probability of words after each layer
        explaining.planted                 measured gaps against planted ones
"""

from llama_from_scratch.lessons.figures import adapter as adapter
from llama_from_scratch.lessons.figures import agents as agents
from llama_from_scratch.lessons.figures import all_kernels as all_kernels
from llama_from_scratch.lessons.figures import answers as answers
from llama_from_scratch.lessons.figures import architecture as architecture
from llama_from_scratch.lessons.figures import banks as banks
from llama_from_scratch.lessons.figures import cache as cache
from llama_from_scratch.lessons.figures import calling as calling
from llama_from_scratch.lessons.figures import context as context
from llama_from_scratch.lessons.figures import data_parallel as data_parallel
from llama_from_scratch.lessons.figures import decoding as decoding
from llama_from_scratch.lessons.figures import dialogs as dialogs
from llama_from_scratch.lessons.figures import encoder as encoder
from llama_from_scratch.lessons.figures import experiments as experiments
from llama_from_scratch.lessons.figures import experts as experts
from llama_from_scratch.lessons.figures import explaining as explaining
from llama_from_scratch.lessons.figures import fragments as fragments
from llama_from_scratch.lessons.figures import fusion as fusion
from llama_from_scratch.lessons.figures import generations as generations
from llama_from_scratch.lessons.figures import heads as heads
from llama_from_scratch.lessons.figures import interruptions as interruptions
from llama_from_scratch.lessons.figures import judging as judging
from llama_from_scratch.lessons.figures import learning as learning
from llama_from_scratch.lessons.figures import llama4 as llama4
from llama_from_scratch.lessons.figures import logits as logits
from llama_from_scratch.lessons.figures import low_rank as low_rank
from llama_from_scratch.lessons.figures import machine as machine
from llama_from_scratch.lessons.figures import manifests as manifests
from llama_from_scratch.lessons.figures import margins as margins
from llama_from_scratch.lessons.figures import measuring as measuring
from llama_from_scratch.lessons.figures import mesh as mesh
from llama_from_scratch.lessons.figures import moving as moving
from llama_from_scratch.lessons.figures import norms as norms
from llama_from_scratch.lessons.figures import packing as packing
from llama_from_scratch.lessons.figures import pieces as pieces
from llama_from_scratch.lessons.figures import pipeline as pipeline
from llama_from_scratch.lessons.figures import programs as programs
from llama_from_scratch.lessons.figures import rates as rates
from llama_from_scratch.lessons.figures import refusals as refusals
from llama_from_scratch.lessons.figures import rewarding as rewarding
from llama_from_scratch.lessons.figures import ring as ring
from llama_from_scratch.lessons.figures import rotation as rotation
from llama_from_scratch.lessons.figures import rungs as rungs
from llama_from_scratch.lessons.figures import schedules as schedules
from llama_from_scratch.lessons.figures import shards as shards
from llama_from_scratch.lessons.figures import slices as slices
from llama_from_scratch.lessons.figures import stored as stored
from llama_from_scratch.lessons.figures import streaming as streaming
from llama_from_scratch.lessons.figures import stretching as stretching
from llama_from_scratch.lessons.figures import studies as studies
from llama_from_scratch.lessons.figures import tiles as tiles
from llama_from_scratch.lessons.figures import timeline as timeline
from llama_from_scratch.lessons.figures import tokenizing as tokenizing
from llama_from_scratch.lessons.figures import traffic as traffic
from llama_from_scratch.lessons.figures import turns as turns
from llama_from_scratch.lessons.figures import widths as widths
from llama_from_scratch.lessons.figures import writing as writing
from llama_from_scratch.lessons.figures.boxes import letters as letters
from llama_from_scratch.lessons.figures.boxes import token_boxes as token_boxes
from llama_from_scratch.lessons.figures.boxes import tokens as tokens
from llama_from_scratch.lessons.figures.look import BLACK as BLACK
from llama_from_scratch.lessons.figures.look import BLUE as BLUE
from llama_from_scratch.lessons.figures.look import CLEAR as CLEAR
from llama_from_scratch.lessons.figures.look import COLORS as COLORS
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
