"""Runs that are remembered, varied and compared.

experiment  settings  parts  torch_optimizer   what is run: the record, its dotted names, its parts
running  store  curves  provenance  variant    how it is run and remembered
compare  verdict  picture                      what differs, and whether the seeds explain it
sweep  pool  worker  overview                  how many are run at once
named  stored                                  the experiments of the course, and their stored runs
"""

from llama_from_scratch.experiments.compare import baseline as baseline
from llama_from_scratch.experiments.compare import compare as compare
from llama_from_scratch.experiments.experiment import Experiment as Experiment
from llama_from_scratch.experiments.experiment import Sample as Sample
from llama_from_scratch.experiments.experiment import TextSource as TextSource
from llama_from_scratch.experiments.experiment import TokenizerFrom as TokenizerFrom
from llama_from_scratch.experiments.named import named as named
from llama_from_scratch.experiments.running import load as load
from llama_from_scratch.experiments.running import run as run
from llama_from_scratch.experiments.store import Store as Store
from llama_from_scratch.experiments.stored import expert_use as expert_use
from llama_from_scratch.experiments.stored import stored as stored
from llama_from_scratch.experiments.sweep import sweep as sweep
from llama_from_scratch.experiments.variant import Variant as Variant
