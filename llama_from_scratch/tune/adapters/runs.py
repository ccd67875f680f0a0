"""The parts of a training step for a model with adapters: `train` changes and saves only these.

A checkpoint of such a run is the adapters in PEFT's layout, with the optimizer's averages and the
record of the run. It is as small as the adapters, and `lora.load` reads it like any other. The base
is not in it, so its digest is compared when the run is resumed.

Notebook 51.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn

from llama_from_scratch.checkpoint import checksums
from llama_from_scratch.checkpoint.folders import find
from llama_from_scratch.foreign import naming
from llama_from_scratch.model.adapted import adapters
from llama_from_scratch.train import resume
from llama_from_scratch.train.parts import TrainParts
from llama_from_scratch.train.protocols import SavedData
from llama_from_scratch.train.records import Step
from llama_from_scratch.train.space import refuse_full_disk
from llama_from_scratch.tune.adapters import peft_files
from llama_from_scratch.tune.adapters.bases import digest

_OURS = ("weights", "begin", "save")


def weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yields the parameters of the adapters, by name."""
    for name, adapted in adapters(model).items():
        yield f"{name}.w_a", adapted.w_a
        yield f"{name}.w_b", adapted.w_b


def parts(parts: TrainParts | None = None, *, base: str | None = None) -> TrainParts:
    """Returns the parts of a step that trains adapters, with the given ones where they differ.

    With them, `train(model, data, folder=..., parts=lora.parts())` saves only the adapters, and
    resumes bit for bit. `parts`: another loss, optimizer or schedule, for example. `base`: as in
    `lora.save`. Raises ValueError for parts that save in another way.
    """
    parts, usual = TrainParts() if parts is None else parts, TrainParts()
    if own := [name for name in _OURS if getattr(parts, name) is not getattr(usual, name)]:
        raise ValueError(f"a run of adapters has its own {', '.join(_OURS)}; got another "
                         f"{' and '.join(own)}. Leave them out, or change what lora.parts returns: "
                         f"dataclasses.replace(lora.parts(), {own[0]}=...)")
    run = _AdapterRun(base)
    return dataclasses.replace(parts, weights=weights, begin=run.begin, save=run.save)


class _AdapterRun:
    """Begins and saves a run. The base is frozen, so its digest is computed once."""

    def __init__(self, base: str | None) -> None:
        self._base, self._digest = base, ""

    def begin(
        self, run: resume.OngoingRun, folder: str | Path | None, *, is_resumed: bool
    ) -> list[Step]:
        """Returns the steps already taken: see `TrainParts.begin`."""
        adapted = peft_files.described(run.model)
        own = {id(p) for each in adapted.values() for p in (each.w_a, each.w_b)}
        trained = [name for name, p in run.model.named_parameters()
                   if p.requires_grad and id(p) not in own]
        if trained:
            raise ValueError("a run of adapters changes nothing else, because it saves nothing "
                             f"else; {', '.join(trained[:4])} would be trained too. Freeze it with "
                             "requires_grad_(False), as lora.add does, or train without adapters")
        if not is_resumed and folder is None:
            return []
        self._digest = digest(run.model)
        if not is_resumed:
            self._refuse_what_cannot_be_saved(run, Path(folder))
            return []
        saved = resume.read(folder, file=peft_files.CONFIG)
        with naming(saved.where):
            state = resume.state_of(run, folder, saved)
            self._put_back(run, saved.where)
            run.optimizer.load_state_dict(state)
        return list(saved.steps)

    def save(self, folder: str | Path, run: resume.OngoingRun, *, steps: Sequence[Step]) -> None:
        """Writes a checkpoint of the adapters, all or nothing: see `TrainParts.save`."""
        with peft_files.replacing(folder) as unfinished:
            resume.write_run(unfinished, run, steps=steps)
            peft_files.write(unfinished, run.model, digest=self._digest, base=self._base)
            checksums.write(unfinished)  # last, because it reads all files

    def _refuse_what_cannot_be_saved(self, run: resume.OngoingRun, folder: Path) -> None:
        if not isinstance(run.data, SavedData):
            raise ValueError("a run that is saved needs data with a tokenizer, n_documents, "
                             f"n_tokens and a digest, such as Packed; got a "
                             f"{type(run.data).__name__}. Train without a folder")
        if find(folder, file=peft_files.CONFIG) is not None:
            raise ValueError(f"{folder} already holds adapters, which a new run would replace. "
                             "Resume that run, choose another folder, or delete this one")
        peft_files.refuse_foreign(folder)
        n_bytes = (sum(p.nbytes for _, p in weights(run.model))
                   + sum(tensor.nbytes for tensor in run.optimizer.state_dict().values()))
        is_one = run.config.checkpoint_every >= run.config.n_steps
        refuse_full_disk(folder, n_bytes=n_bytes, n_copies=1 if is_one else 2)

    def _put_back(self, run: resume.OngoingRun, folder: Path) -> None:
        """Puts the saved adapters into the model's own, which must be of the same kind."""
        saved, own = peft_files.read(folder, run.model.config), adapters(run.model)
        if saved.digest != self._digest:
            raise ValueError("a resumed run has the base that it began with; the adapters belong "
                             f"to a model with the digest {(saved.digest or 'unknown')[:12]}, and "
                             f"this one has {self._digest[:12]}. Load that model, and add adapters "
                             "to it")
        if saved.weights.keys() != own.keys() or saved.how != next(iter(own.values())).how:
            raise ValueError("a resumed run has the adapters that it began with: "
                             f"{len(saved.weights)} with {saved.how}; the model has {len(own)} "
                             f"with {next(iter(own.values())).how}. Add the same ones, or put them "
                             "in with lora.load(model, folder)")
        for name, pair in saved.weights.items():
            for parameter, read in zip((own[name].w_a, own[name].w_b), pair, strict=True):
                parameter.data = read.to(parameter.device).contiguous()
