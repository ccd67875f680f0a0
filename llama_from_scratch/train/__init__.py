"""Text -> parameters: data, loss, optimizer, schedule and the loop that joins them.

data  images  loss  optimizer  schedule  loop    one run
protocols  parts  records  recorded  resume  the run's parts, its records, how it is resumed
space                                        the memory and disk that the run needs
progress                                     a progress bar for the terminal
mini  mini_families  side_files              published checkpoints in miniature
questions  scenes  digits  picture_batches       pictures with questions, and their tensors
words  rates  seeing  exact_match                a small text model learns to see
story_dialogs  aligned  kept                 the data of a mini, and where a mini is kept
"""

from llama_from_scratch.train.data import Batch as Batch
from llama_from_scratch.train.data import Packed as Packed
from llama_from_scratch.train.data import read_documents as read_documents
from llama_from_scratch.train.data import split_validation as split_validation
from llama_from_scratch.train.loop import Diverged as Diverged
from llama_from_scratch.train.loop import train as train
from llama_from_scratch.train.loss import evaluate as evaluate
from llama_from_scratch.train.optimizer import AdamW as AdamW
from llama_from_scratch.train.parts import TrainParts as TrainParts
from llama_from_scratch.train.records import Evaluation as Evaluation
from llama_from_scratch.train.records import History as History
from llama_from_scratch.train.records import Step as Step
from llama_from_scratch.train.records import TrainConfig as TrainConfig
from llama_from_scratch.train.schedule import learning_rate as learning_rate
