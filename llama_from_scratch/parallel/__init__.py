"""The plain model on many ranks: `shard` puts it onto a mesh, and `launch` starts ranks here.

`data_parallel`, `sharded` (ZeRO 1 to 3), `tensor_parallel`, `pipeline`, `context` and
`expert_parallel` are each applied to a finished model from outside, and `shard` composes them;
`native` does the same through PyTorch's own parts. `collectives` builds the
exchanges from send and receive, and the log of every group shows each byte that was sent. No
process group is made at import.

Notebooks 40 to 47.
"""

from llama_from_scratch.parallel.fresh import fresh_weights as fresh_weights
from llama_from_scratch.parallel.launch import RankFailed as RankFailed
from llama_from_scratch.parallel.launch import Ranks as Ranks
from llama_from_scratch.parallel.launch import launch as launch
from llama_from_scratch.parallel.mesh import Mesh as Mesh
from llama_from_scratch.parallel.pipeline.plan import PipelinePlan as PipelinePlan
from llama_from_scratch.parallel.shard import shard as shard
from llama_from_scratch.parallel.training import parts_on as parts_on
from llama_from_scratch.parallel.world import World as World
