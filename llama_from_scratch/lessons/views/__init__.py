"""Widgets that show the reader's own model, tokenizer and runs.

Each widget has a frame, which is the same picture without controls.

`attention(model, tokenizer, text="...")` is a widget, and `attention_frame(...)` draws its figure.
A frame takes numbers and never runs a model. Every widget runs the model again when a control
moves, so it shows the current weights.

    merging        merges: bytes of a text are merged into tokens                      chapter 10
    rotation       rope: hands that turn with the position                             chapter 12
    heads          attention: which token looks at which                               chapter 13
    layers         residual_stream: what each layer adds, and what it would predict    chapter 15
    dials          sampling: next tokens before and after temperature and filters      chapter 16
    sweep          learning_rates: finished runs, by learning rate                     chapter 17
    sizes          what a model costs: parameters, FLOPs, the KV cache       chapters 13, 15, 16
    experiments    choose_runs: remembered runs, drawn and compared                    chapter 09
    chat           ChatWindow, Conversation: write with a model, or talk to it     chapters 17, 19
    tiles          tiles_of_size, tiles_of_picture: an image on its canvas             chapter 20
    vision_encoder image_attention: which patch looks at which                         chapter 21
    vision_adapter ask_about_scene: what a model sees, and where it looks              chapter 22
    experts        token_experts, experts_costs: who goes where, and what it costs     chapter 23
    llama4         chunks, image_tokens: who sees whom, and an image as tokens         chapter 24
    stretching     stretched: which needles a stretched model finds                    chapter 25
    collectives    all_reduce_costs: the time of a sum over ranks, three ways          chapter 40
    data_parallel  data_parallel_costs: time, bytes and memory, and a real run         chapter 41
    decoding       decoding_bound, decoding_splits: what bounds tokens per second      chapter 35
    gpu            the emulated CUDA machine                                           chapter 30
    streaming      online_softmax: a softmax that reads tile by tile                   chapter 33
    ownership      fragments: which numbers of a matrix a lane holds                   chapter 37
    banks          swizzle: a tile bank by bank, and the passes of a read              chapter 37
    shards         sharding: what each stage keeps and sends                           chapter 42
    tensor_parallel tensor_parallel_costs: a layer that is cut among ranks             chapter 43
    pipeline       pipeline_schedules: a schedule's chart, bubble and memory           chapter 44
    context_parallel context_ranks: who attends to whom across ranks                   chapter 45
    expert_parallel expert_traffic: rows that travel to experts, and ranks that wait   chapter 46
    four_d         four_d_costs: a mesh for a model, whether it fits, what it holds    chapter 47
    agent          agent_steps: the calls of an agent, and what became of them         chapter 56
    errand         do_errand: an errand with tools, message by message             chapter 55
    attacking      attack_agent: write a note, and see what an agent does with it  chapter 56
    assistants     ask_assistants: models answer the same request, and are judged  chapter 50
    low_rank       kept_directions: a tuning cut to its first directions            chapter 51
    judging        noisy_judge: the best of n, by a judge that may be fooled        chapter 52
    margins        preference_pull: one pair, its loss and how hard it pulls        chapter 53
    rewarding      reward_group: from rewards to pushes on tokens; RewardPlot      chapter 54
    programs       choose_program: which of n programs the shown tests choose       chapter 58
    explaining     explain_answer: which sentence made the answer, by method       chapter 59
    thresholds     refusal_threshold: requests that change sides with a threshold  chapter 57
    inspect_model  the numbers behind these pictures: trace, lens
    text           a reader's text as tokens
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama_from_scratch.lessons.views.agent import agent_steps as agent_steps
    from llama_from_scratch.lessons.views.agent import agent_steps_frame as agent_steps_frame
    from llama_from_scratch.lessons.views.assistants import ask_assistants as ask_assistants
    from llama_from_scratch.lessons.views.assistants import assistants_frame as assistants_frame
    from llama_from_scratch.lessons.views.attacking import attack_agent as attack_agent
    from llama_from_scratch.lessons.views.banks import swizzle as swizzle
    from llama_from_scratch.lessons.views.banks import swizzle_frame as swizzle_frame
    from llama_from_scratch.lessons.views.collectives import all_reduce_costs as all_reduce_costs
    from llama_from_scratch.lessons.views.collectives import (
        all_reduce_costs_frame as all_reduce_costs_frame,
    )
    from llama_from_scratch.lessons.views.context_parallel import context_ranks as context_ranks
    from llama_from_scratch.lessons.views.data_parallel import (
        data_parallel_costs as data_parallel_costs,
    )
    from llama_from_scratch.lessons.views.data_parallel import (
        data_parallel_frame as data_parallel_frame,
    )
    from llama_from_scratch.lessons.views.decoding import decoding_bound as decoding_bound
    from llama_from_scratch.lessons.views.decoding import (
        decoding_bound_frame as decoding_bound_frame,
    )
    from llama_from_scratch.lessons.views.decoding import decoding_splits as decoding_splits
    from llama_from_scratch.lessons.views.decoding import (
        decoding_splits_frame as decoding_splits_frame,
    )
    from llama_from_scratch.lessons.views.dials import sampling as sampling
    from llama_from_scratch.lessons.views.dials import sampling_frame as sampling_frame
    from llama_from_scratch.lessons.views.errand import do_errand as do_errand
    from llama_from_scratch.lessons.views.errand import do_errand_frame as do_errand_frame
    from llama_from_scratch.lessons.views.experiments import choose_runs as choose_runs
    from llama_from_scratch.lessons.views.expert_parallel import expert_traffic as expert_traffic
    from llama_from_scratch.lessons.views.expert_parallel import (
        expert_traffic_frame as expert_traffic_frame,
    )
    from llama_from_scratch.lessons.views.experts import experts_costs as experts_costs
    from llama_from_scratch.lessons.views.experts import experts_costs_frame as experts_costs_frame
    from llama_from_scratch.lessons.views.experts import token_experts as token_experts
    from llama_from_scratch.lessons.views.experts import token_experts_frame as token_experts_frame
    from llama_from_scratch.lessons.views.experts import with_experts as with_experts
    from llama_from_scratch.lessons.views.explaining import ExplainedAnswer as ExplainedAnswer
    from llama_from_scratch.lessons.views.explaining import explain_answer as explain_answer
    from llama_from_scratch.lessons.views.explaining import (
        explain_answer_frame as explain_answer_frame,
    )
    from llama_from_scratch.lessons.views.four_d import four_d_costs as four_d_costs
    from llama_from_scratch.lessons.views.four_d import four_d_frame as four_d_frame
    from llama_from_scratch.lessons.views.heads import attention as attention
    from llama_from_scratch.lessons.views.heads import attention_frame as attention_frame
    from llama_from_scratch.lessons.views.heads import (
        attention_heads_frame as attention_heads_frame,
    )
    from llama_from_scratch.lessons.views.judging import noisy_judge as noisy_judge
    from llama_from_scratch.lessons.views.judging import noisy_judge_frame as noisy_judge_frame
    from llama_from_scratch.lessons.views.layers import residual_frame as residual_frame
    from llama_from_scratch.lessons.views.layers import residual_stream as residual_stream
    from llama_from_scratch.lessons.views.llama4 import chunks as chunks
    from llama_from_scratch.lessons.views.llama4 import image_tokens as image_tokens
    from llama_from_scratch.lessons.views.low_rank import kept_directions as kept_directions
    from llama_from_scratch.lessons.views.low_rank import (
        kept_directions_frame as kept_directions_frame,
    )
    from llama_from_scratch.lessons.views.margins import preference_pull as preference_pull
    from llama_from_scratch.lessons.views.margins import (
        preference_pull_frame as preference_pull_frame,
    )
    from llama_from_scratch.lessons.views.merging import merges as merges
    from llama_from_scratch.lessons.views.merging import merges_frame as merges_frame
    from llama_from_scratch.lessons.views.merging import merges_used as merges_used
    from llama_from_scratch.lessons.views.ownership import fragments as fragments
    from llama_from_scratch.lessons.views.ownership import fragments_frame as fragments_frame
    from llama_from_scratch.lessons.views.pipeline import pipeline_frame as pipeline_frame
    from llama_from_scratch.lessons.views.pipeline import pipeline_schedules as pipeline_schedules
    from llama_from_scratch.lessons.views.programs import choose_program as choose_program
    from llama_from_scratch.lessons.views.programs import (
        choose_program_frame as choose_program_frame,
    )
    from llama_from_scratch.lessons.views.rewarding import RewardPlot as RewardPlot
    from llama_from_scratch.lessons.views.rewarding import reward_group as reward_group
    from llama_from_scratch.lessons.views.rewarding import (
        reward_group_frame as reward_group_frame,
    )
    from llama_from_scratch.lessons.views.rotation import rope as rope
    from llama_from_scratch.lessons.views.rotation import rope_frame as rope_frame
    from llama_from_scratch.lessons.views.shards import sharding as sharding
    from llama_from_scratch.lessons.views.shards import sharding_frame as sharding_frame
    from llama_from_scratch.lessons.views.streaming import online_softmax as online_softmax
    from llama_from_scratch.lessons.views.streaming import (
        online_softmax_frame as online_softmax_frame,
    )
    from llama_from_scratch.lessons.views.stretching import stretched as stretched
    from llama_from_scratch.lessons.views.stretching import stretched_frame as stretched_frame
    from llama_from_scratch.lessons.views.sweep import final_loss as final_loss
    from llama_from_scratch.lessons.views.sweep import learning_rates as learning_rates
    from llama_from_scratch.lessons.views.sweep import learning_rates_frame as learning_rates_frame
    from llama_from_scratch.lessons.views.tensor_parallel import (
        tensor_parallel_costs as tensor_parallel_costs,
    )
    from llama_from_scratch.lessons.views.text import encode as encode
    from llama_from_scratch.lessons.views.thresholds import refusal_threshold as refusal_threshold
    from llama_from_scratch.lessons.views.thresholds import (
        refusal_threshold_frame as refusal_threshold_frame,
    )
    from llama_from_scratch.lessons.views.tiles import tiles_of_picture as tiles_of_picture
    from llama_from_scratch.lessons.views.tiles import tiles_of_size as tiles_of_size
    from llama_from_scratch.lessons.views.vision_adapter import SeeingPlot as SeeingPlot
    from llama_from_scratch.lessons.views.vision_adapter import ask_about_scene as ask_about_scene
    from llama_from_scratch.lessons.views.vision_adapter import (
        cross_attention_weights as cross_attention_weights,
    )
    from llama_from_scratch.lessons.views.vision_adapter import look_frame as look_frame
    from llama_from_scratch.lessons.views.vision_adapter import read_picture as read_picture
    from llama_from_scratch.lessons.views.vision_adapter import scene_of as scene_of
    from llama_from_scratch.lessons.views.vision_adapter import seeing_frame as seeing_frame
    from llama_from_scratch.lessons.views.vision_encoder import image_attention as image_attention
    from llama_from_scratch.lessons.views.vision_encoder import (
        image_attention_frame as image_attention_frame,
    )
    from llama_from_scratch.lessons.views.vision_encoder import (
        image_attention_weights as image_attention_weights,
    )

# Loaded when used, because `inspect_model` draws nothing and needs no drawing packages.
_HOMES = {
    "agent_steps": "agent", "agent_steps_frame": "agent",
    "attack_agent": "attacking",
    "all_reduce_costs": "collectives", "all_reduce_costs_frame": "collectives",
    "ask_assistants": "assistants", "assistants_frame": "assistants",
    "kept_directions": "low_rank", "kept_directions_frame": "low_rank",
    "noisy_judge": "judging", "noisy_judge_frame": "judging",
    "ExplainedAnswer": "explaining", "explain_answer": "explaining",
    "explain_answer_frame": "explaining",
    "choose_program": "programs", "choose_program_frame": "programs",
    "preference_pull": "margins", "preference_pull_frame": "margins",
    "attention": "heads", "attention_frame": "heads", "attention_heads_frame": "heads",
    "context_ranks": "context_parallel",
    "data_parallel_costs": "data_parallel", "data_parallel_frame": "data_parallel",
    "decoding_bound": "decoding", "decoding_bound_frame": "decoding",
    "decoding_splits": "decoding", "decoding_splits_frame": "decoding",
    "do_errand": "errand", "do_errand_frame": "errand",
    "choose_runs": "experiments", "encode": "text", "final_loss": "sweep",
    "expert_traffic": "expert_parallel", "expert_traffic_frame": "expert_parallel",
    "experts_costs": "experts", "experts_costs_frame": "experts",
    "token_experts": "experts", "token_experts_frame": "experts", "with_experts": "experts",
    "four_d_costs": "four_d", "four_d_frame": "four_d",
    "fragments": "ownership", "fragments_frame": "ownership",
    "swizzle": "banks", "swizzle_frame": "banks",
    "image_attention": "vision_encoder", "image_attention_frame": "vision_encoder",
    "image_attention_weights": "vision_encoder",
    "chunks": "llama4", "image_tokens": "llama4",
    "RewardPlot": "rewarding", "reward_group": "rewarding", "reward_group_frame": "rewarding",
    "learning_rates": "sweep", "learning_rates_frame": "sweep",
    "merges": "merging", "merges_frame": "merging", "merges_used": "merging",
    "online_softmax": "streaming", "online_softmax_frame": "streaming",
    "pipeline_frame": "pipeline", "pipeline_schedules": "pipeline",
    "residual_frame": "layers", "residual_stream": "layers",
    "rope": "rotation", "rope_frame": "rotation",
    "sampling": "dials", "sampling_frame": "dials",
    "sharding": "shards", "sharding_frame": "shards",
    "stretched": "stretching", "stretched_frame": "stretching",
    "tensor_parallel_costs": "tensor_parallel",
    "refusal_threshold": "thresholds", "refusal_threshold_frame": "thresholds",
    "tiles_of_picture": "tiles", "tiles_of_size": "tiles",
    "SeeingPlot": "vision_adapter", "ask_about_scene": "vision_adapter",
    "cross_attention_weights": "vision_adapter", "look_frame": "vision_adapter",
    "read_picture": "vision_adapter", "scene_of": "vision_adapter",
    "seeing_frame": "vision_adapter",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
