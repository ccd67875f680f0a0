"""The groups of rank 0 of a mesh, without other ranks: for what is refused before they meet."""

from llama_from_scratch.parallel.comm import RankGroup
from llama_from_scratch.parallel.mesh import EXPERT_GROUPS, GROUPS, Axes
from llama_from_scratch.parallel.world import alone


def on_paper(mesh):
    world = alone()
    groups = {name: RankGroup(next(mesh.lines(*axes)), own=0, name=name, log=world.log,
                              process_group=None, device=world.device)
              for name, axes in GROUPS.items()}
    lines = {name: mesh.expert_lines(name) for name in EXPERT_GROUPS} | {"ends": mesh.end_lines()}
    groups |= {name: RankGroup(next(iter(ranks)), own=0, name=name, log=world.log,
                               process_group=None, device=world.device)
               for name, ranks in lines.items()}
    return Axes(mesh=mesh, world=world, **groups)
