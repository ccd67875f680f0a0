"""Runs an experiment, changed or not, and remembers it.

`run(EXPERIMENT, **{"train.peak_lr": 3e-3})` trains one variant and returns it. A run that the store
already holds is not repeated: the same settings, parts, data and code give the same numbers. A run
that was stopped goes on from its checkpoint.

Notebook 09.
"""

import contextlib
import dataclasses
import datetime
import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model

from llama_from_scratch import bundled
from llama_from_scratch.checkpoint import folders, native
from llama_from_scratch.checkpoint.vocabulary import read_tokenizer
from llama_from_scratch.config import record
from llama_from_scratch.experiments import parts as exchange
from llama_from_scratch.experiments import provenance, store
from llama_from_scratch.experiments.curves import Curves
from llama_from_scratch.experiments.experiment import STORIES, Experiment, TextSource, described
from llama_from_scratch.experiments.settings import changed
from llama_from_scratch.experiments.store import Run, Store
from llama_from_scratch.experiments.variant import Variant, label
from llama_from_scratch.files import locked, remove, replacing_file
from llama_from_scratch.foreign import plain, shown
from llama_from_scratch.generate.generate import stream_text
from llama_from_scratch.generate.sampling import Sampling
from llama_from_scratch.model.transformer import Llama
from llama_from_scratch.tokenizer.byte_bpe import BEGIN_AND_END, Tokenizer
from llama_from_scratch.train import (
    Diverged,
    Packed,
    Step,
    read_documents,
    resume,
    split_validation,
    train,
)
from llama_from_scratch.train.progress import TrainingMoment, TrainingProgress, here

ENDED = ("complete", "diverged")
"""The states of a run that need not run again: the same settings give the same result."""
_WEIGHTS = "weights.safetensors"
"""The file of a run with exchanged parts: only weights, because no format describes the model."""


def run(
    experiment: Experiment, *, replace: Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 1, kept_in: Store | str | Path | None = None,
    is_again: bool = False, show: Callable[[TrainingMoment], Any] | None = None, **settings: Any,
) -> Variant:
    """Trains an experiment with these settings and parts, and returns it with all its seeds.

    `settings`: by dotted name, such as `**{"train.peak_lr": 3e-3}`. `replace`: parts by name, such
    as `{"norm": MyNorm}`; see `experiments.parts`. `seeds`: how many, from the experiment's own
    seed on, or which. `kept_in`: the store or its folder. `is_again`: train again even if the store
    has the result. `show`: see `TrainingProgress`.

    A run that diverges is remembered as such. An interrupt ends the run after the step in progress,
    and the next call continues it. With exchanged parts of the model, or with the part "balance",
    it begins again, because no checkpoint describes such a run. Torch's random state is left as it
    was.
    Raises ValueError for a setting, a value or a part that cannot be, before anything is trained.
    """
    kept_in = kept_in if isinstance(kept_in, Store) else Store(kept_in)
    variants = variants_of(experiment, settings=settings, replace=replace, seeds=seeds)
    done = []
    for variant in variants:
        done.append(execute(variant, base=experiment, kept_in=kept_in, is_again=is_again,
                            show=show))
        if done[-1].state == "stopped":
            break
    return Variant(experiment=experiment.name, name=done[0].variant, runs=tuple(done))


def variants_of(
    experiment: Experiment, *, settings: Mapping[str, Any], replace: Mapping[str, Any] | None,
    seeds: int | Sequence[int],
) -> list[Experiment]:
    """Returns the changed experiment once per seed. Raises ValueError for what cannot be."""
    parts = dict(experiment.parts) | {name: exchange.part(use)
                                      for name, use in (replace or {}).items()}
    one = dataclasses.replace(changed(experiment, settings), parts=parts)
    exchange.try_out(parts, one.model)
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise ValueError(f"an experiment needs at least one seed; got seeds={seeds}")
        seeds = range(one.seed, one.seed + seeds)
    seeds = list(seeds) if isinstance(seeds, Iterable) else [seeds]
    if any(type(seed) is not int for seed in seeds):
        raise ValueError(f"seeds are whole numbers; got {shown(seeds)}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are a number of them, or a list of different ones; got {seeds}")
    return [dataclasses.replace(one, seed=seed) for seed in seeds]


def execute(
    experiment: Experiment, *, base: Experiment, kept_in: Store, is_again: bool = False,
    show: Callable[[TrainingMoment], Any] | None = None,
) -> Run:
    """Returns the run of one variant with one seed: from the store, or trained now.

    Another process that runs the same is waited for.
    """
    place = kept_in.place(experiment, base=base)
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        planned, found = remembered(experiment, base=base, kept_in=kept_in)
        if found is None or is_again:
            remove(place)
        elif found.state in ENDED:
            _show_again(found, n_steps=experiment.train.n_steps, show=show)
            return found
        else:
            planned = dataclasses.replace(planned, samples=found.samples)
        with torch.random.fork_rng(devices=[]):
            return _trained(experiment, planned, show=show)


def remembered(
    experiment: Experiment, *, base: Experiment, kept_in: Store
) -> tuple[Run, Run | None]:
    """Returns the record of the run before it begins, and what the store has of the same run.

    The second is None if the store has nothing, a damaged record, or a run with other settings,
    parts, data or code. Raises ValueError for a record of a newer version, and for a text that does
    not exist.
    """
    place = kept_in.place(experiment, base=base)
    planned = store.planned(experiment, base=base, place=place)
    fingerprint = {"data": _identity(experiment), "code": provenance.code()["digest"]}
    found = _usable(kept_in, place)
    is_same = found is not None and _is_same(found, planned, fingerprint)
    return planned, found if is_same else None


def _usable(kept_in: Store, place: Path) -> Run | None:
    """Returns what the store has of this run; None for nothing, or for what cannot be read."""
    try:
        found = kept_in.find(place)
        if found is not None and found.state in ENDED:
            _ = found.curves
    except store.Newer:
        raise
    except ValueError:
        return None
    return found


def _show_again(run: Run, *, n_steps: int, show: Callable[[TrainingMoment], Any] | None) -> None:
    """Shows the end of a remembered run where its training would have been shown."""
    curves = run.curves
    if not len(curves.steps):
        return
    before = curves.tokens[-2] if len(curves.steps) > 1 else 0
    began_s = curves.seconds[-2] if len(curves.steps) > 1 else 0.0
    step = Step(step=int(curves.steps[-1]) - 1, loss=float(curves.loss[-1]),
                lr=float(curves.lr[-1]), grad_norm=float(curves.grad_norm[-1]),
                n_tokens=int(curves.tokens[-1] - before),
                time_s=float(curves.seconds[-1] - began_s))
    moment = TrainingMoment(
        what=f"{label(run)}, seed {run.seed}, remembered", n_steps=n_steps, step=step, left_s=0.0,
        sample=run.samples[-1][1] if run.samples else "")
    (here() if show is None else show)(moment)


def _is_same(found: Run, planned: Run, fingerprint: Mapping[str, str]) -> bool:
    return (dict(found.settings) == dict(planned.settings)
            and {name: part["digest"] for name, part in found.parts.items()}
            == {name: part["digest"] for name, part in planned.parts.items()}
            and (not found.code or found.code.get("digest") == fingerprint["code"])
            and (not found.data or found.data.get("files") == fingerprint["data"]))


def _trained(
    experiment: Experiment, planned: Run, *, show: Callable[[TrainingMoment], Any] | None
) -> Run:
    prepared = prepare(experiment)
    model, data, config = prepared.model, prepared.data, experiment.train
    config = dataclasses.replace(config, seed=experiment.seed)
    folder = None if prepared.is_exchanged else planned.folder / store.CHECKPOINT
    current = dataclasses.replace(
        planned, state="running", code=provenance.code(), versions=provenance.versions(),
        machine=provenance.machine(model.device),
        began=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        notes=prepared.notes, data={"files": prepared.files, "digest": data.digest[:16],
                                    "n_documents": data.n_documents, "n_tokens": data.n_tokens})
    is_resumed = folder is not None and folders.find(folder) is not None
    steps = _saved_steps(folder) if is_resumed else []
    earlier = [pair for pair in planned.samples if pair[0] <= len(steps)]
    progress = TrainingProgress(
        n_steps=config.n_steps, what=f"{label(planned)}, seed {experiment.seed}",
        sample=sampler(experiment, prepared), show=show)

    def remember(state: str, **values: Any) -> Run:
        samples = dict([*earlier, *progress.samples])
        now = dataclasses.replace(current, state=state, samples=tuple(sorted(samples.items())),
                                  **values)
        store.write(now)
        return now

    def on_step(step: Step) -> None:
        steps.append(step)
        n_samples = len(progress.samples)
        progress(step)
        if len(progress.samples) > n_samples:  # a killed run keeps them
            remember("running")

    def ended(state: str, *, error: str = "") -> Run:
        curves = Curves.of(steps, config=model.config, seq_len=config.seq_len)
        curves.write(planned.folder / "curves.npz")
        metrics = _metrics(curves, model)
        is_finite = all(math.isfinite(value) for value in metrics.values())
        if state == "complete" and not is_finite:
            state, error = "diverged", "the validation loss is not finite after the last step"
        return remember(state, error=plain(error), metrics={
            name: value for name, value in metrics.items() if math.isfinite(value)})

    remember("running")
    try:
        with exchange.around(experiment.parts, model) as parts:
            history = train(model, data, config=config, validation=prepared.validation,
                            folder=folder, is_resumed=is_resumed, on_step=on_step, parts=parts)
        if folder is None and history.is_complete:
            with replacing_file(planned.folder / _WEIGHTS) as file:
                save_model(model, str(file))
        return ended("complete" if history.is_complete else "stopped")
    except Diverged as error:
        return ended("diverged", error=str(error))
    except KeyboardInterrupt:
        return ended("stopped")
    except BaseException as error:
        # A full disk refuses this record as well; the error itself is what the reader needs.
        with contextlib.suppress(OSError):
            ended("failed", error=f"{type(error).__name__}: {error}")
        raise


def _saved_steps(folder: Path) -> list[Step]:
    try:
        return list(resume.read(folder).steps)
    except ValueError as error:
        raise ValueError(f"{error}. Or train from the beginning: delete the folder "
                         f"{folder.parent}") from error


def load(
    run: Run, *, base: Experiment, replace: Mapping[str, Any] | None = None
) -> tuple[Llama, Tokenizer]:
    """Returns the trained model of a complete run and its tokenizer.

    `base`: the experiment that the run is a variant of. `replace`: the exchanged parts once more,
    because a store keeps their text and not their code.
    Raises ValueError if the run is not complete, or if its parts were others.
    """
    if not run.is_complete:
        raise ValueError(f"only a complete run has a trained model; {run.folder} is {run.state}. "
                         "Run it again to continue it")
    variant, = variants_of(base, settings=run.difference, replace=replace, seeds=[run.seed])
    digests, given = ({name: part["digest"] for name, part in parts.items()}
                      for parts in (run.parts, described(variant)))
    if digests != given:
        raise ValueError(f"the run exchanged {', '.join(digests) or 'no part'}; got "
                         f"{', '.join(given) or 'no part'}, or parts with another source. Give "
                         "the same with replace={...}; its text is in run.json")
    with torch.random.fork_rng(devices=[]):
        prepared = prepare(variant)
    if prepared.is_exchanged:
        weights = run.folder / _WEIGHTS
        if not weights.is_file():
            raise ValueError(f"the weights of a run with exchanged parts are in {weights}, which "
                             "does not exist. Run the experiment again with is_again=True")
        load_model(prepared.model, str(weights))
    else:
        native.load_weights(run.folder / store.CHECKPOINT, prepared.model)
    return prepared.model, prepared.tokenizer


def _metrics(curves: Curves, model: Llama) -> dict[str, float]:
    """Returns the final numbers. The training loss is a mean over the last tenth of the steps."""
    if not len(curves.steps):
        return {}
    tenth = max(len(curves.steps) // 10, 1)
    found = {"loss": float(curves.loss[-tenth:].mean()), "n_steps": int(curves.steps[-1]),
             "n_tokens": int(curves.tokens[-1]), "seconds": float(curves.seconds[-1]),
             "flops": float(curves.flops[-1]),
             "n_params": sum(p.numel() for p in model.parameters())}
    if len(curves.validation_loss):
        found |= {"validation_loss": float(curves.validation_loss[-1]),
                  "bits_per_byte": float(curves.bits_per_byte[-1])}
    return found


# --- what a run is made of ------------------------------------------------------------------------


@record
class Prepared:
    """Everything a run needs.

    `is_exchanged`: no checkpoint describes the run, because the model is no longer what its config
    says, or because a part has a state of its own.
    `files`: a digest of the files that were read. `notes`: what a reader should know about the
    exchanged parts.
    """

    model: Llama
    tokenizer: Tokenizer
    data: Packed
    validation: Packed
    files: str
    is_exchanged: bool
    notes: tuple[str, ...] = ()


def prepare(experiment: Experiment) -> Prepared:
    """Returns the fresh model of an experiment with its parts exchanged, and its packed texts.

    It seeds torch's random generator.
    """
    exchange.try_out(experiment.parts, experiment.model)
    files = _identity(experiment)
    tokenizer, data, validation = _packed(experiment.data, experiment.tokenizer,
                                          experiment.model.vocab_size, files)
    torch.manual_seed(experiment.seed)
    model = Llama(experiment.model)
    is_exchanged = exchange.put_in(model, experiment.parts)
    unused = exchange.freeze_unused(model) if is_exchanged else []
    notes = () if not unused else (
        f"{len(unused)} tensors have no effect with these parts and are not trained: "
        f"{', '.join(unused[:3])}{' and others' if len(unused) > 3 else ''}",)
    return Prepared(model=model, tokenizer=tokenizer, data=data, validation=validation,
                    files=files, notes=notes,
                    is_exchanged=is_exchanged or exchange.has_unsaved_state(experiment.parts))


@functools.lru_cache(maxsize=2)
def _packed(text: TextSource, tokenizer_from, vocab_size: int, identity: str):
    """Returns tokenizer, training data and validation data; kept, as many runs share them."""
    documents = read_documents(_path(text), separator=text.separator, suffixes=text.suffixes)
    learned, unseen = split_validation(documents, fraction=text.validation)
    learned, unseen = learned[: text.max_documents], unseen[: text.max_validation]
    if tokenizer_from.path is None:
        tokenizer = Tokenizer.train(learned[: tokenizer_from.max_documents], vocab_size,
                                    special_tokens=BEGIN_AND_END)
    else:
        tokenizer = read_tokenizer(Path(tokenizer_from.path).expanduser())
    if tokenizer.vocab_size > vocab_size:
        raise ValueError("the model needs a row of its embedding for each token; the tokenizer has "
                         f"{tokenizer.vocab_size} tokens and model.vocab_size is {vocab_size}. "
                         f"Set model.vocab_size={tokenizer.vocab_size}")
    return tokenizer, Packed(learned, tokenizer), Packed(unseen, tokenizer)


def _path(text: TextSource) -> Path:
    return bundled.path("stories.txt") if text.path == STORIES else Path(text.path).expanduser()


def _identity(experiment: Experiment) -> str:
    """Returns a digest of the files that the run reads, so that an edited text is another run."""
    total = hashlib.sha256()
    paths = [_path(experiment.data)]
    if experiment.tokenizer.path is not None:
        paths.append(Path(experiment.tokenizer.path).expanduser())
    for path in paths:
        files = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
        for file in files:
            if not file.is_file():
                raise ValueError("the text and the tokenizer of an experiment must exist; "
                                 f'{plain(file)} does not. Set data.path ("{STORIES}" for the '
                                 "bundled stories), or tokenizer.path (None trains one)")
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def sampler(experiment: Experiment, prepared: Prepared) -> Callable[[], str] | None:
    """Returns a function that writes the experiment's sample, or None if it has no sample."""
    asked = experiment.sample
    if asked.n_tokens == 0:
        return None
    sampling = Sampling(temperature=asked.temperature, top_p=asked.top_p)
    n_tokens = min(asked.n_tokens, experiment.model.max_seq_len - 1)

    def sample() -> str:
        try:
            return asked.prompt + "".join(stream_text(
                prepared.model, prepared.tokenizer, prompt=asked.prompt, max_tokens=n_tokens,
                sampling=sampling, seed=0))
        except Exception as error:
            return plain(f"(no sample: {type(error).__name__}: {error})")

    return sample
