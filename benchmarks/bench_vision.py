"""Measures the part that sees on a CPU, against transformers, and what an image costs a decoder.

The shape is the 11B at a quarter of its width with fewer layers of each kind, in fp32 with random
weights and open gates, on one thread. Contestants have the same weights and take turns; a ratio is
the median of the ratios within a round. The clock counts processor seconds. Results are compared
before anything is timed.

    python benchmarks/bench_vision.py

It prints the table and writes benchmarks/results/vision.json.
"""

import dataclasses
import io
import statistics
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import torch
from measure import race, ratio, write
from PIL import Image

from llama_from_scratch.config import LayerSpec, LlamaConfig
from llama_from_scratch.vision.adapter import detach
from llama_from_scratch.vision.tiles import Tiling, split

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from seeing_twin import loud, pictures, tile_mask_of, twin_of
from vision_twin import LLAMA_3_2_11B

IMAGE = 2048
TEXT = LlamaConfig(dim=1024, n_heads=8, n_kv_heads=2, ffn_dim=3584, vocab_size=IMAGE,
                   max_seq_len=4096, norm_eps=1e-5, rope_theta=5e5, layers=(LayerSpec(),) * 8)
VISION = dataclasses.replace(
    LLAMA_3_2_11B, dim=320, n_heads=4, ffn_dim=1280, n_local_layers=4, n_global_layers=1,
    intermediate_layers=(1, 2, 3), output_dim=TEXT.dim)
N_ROUNDS, N_DECODED, N_PROMPT = 7, 8, 256


def row(name: str, times: dict[str, list[float]], slow: str, fast: str) -> dict:
    medians = {who: statistics.median(seconds) for who, seconds in times.items()}
    found = {"what": name, "seconds": medians, "slow": slow, "fast": fast,
             "times_as_long": ratio(times, slow, fast)}
    print(f"{name}: {found['times_as_long']:.2f} = {slow} / {fast}; "
          + ", ".join(f"{who} {1000 * s:.1f} ms" for who, s in medians.items()), flush=True)
    return found


@torch.inference_mode()
def encoder_row(model, twin, images) -> dict:
    mask = images.tile_mask.long()
    contestants = {
        "ours": lambda: model.vision(images.pixels[0], images.aspect_ids[0]),
        "transformers": lambda: twin.model.multi_modal_projector(twin.model.vision_model(
            pixel_values=images.pixels, aspect_ratio_ids=images.aspect_ids,
            aspect_ratio_mask=mask).last_hidden_state)}
    ours, other = (run() for run in contestants.values())
    torch.testing.assert_close(ours, other.view(ours.shape), rtol=1e-3, atol=1e-3)
    return row("encoder and projector, one image of 4 tiles",
               race(contestants, n_rounds=N_ROUNDS, clock=time.process_time),
               "transformers", "ours")


@torch.inference_mode()
def decoding_rows(model, twin, images) -> list[dict]:
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(1, IMAGE, (1, N_PROMPT + N_DECODED + 1), generator=made)
    text_ids = ids.clone()
    ids[0, 0] = IMAGE  # nothing before the image, where the rules of the two differ
    plain, prompt = detach(model), slice(0, N_PROMPT)

    def decode(step, start):
        """Runs one token at a time, as a decoder does, and returns the last logits."""
        out = None
        for at in range(N_PROMPT, N_PROMPT + N_DECODED):
            out = step(at)
        start.truncate(N_PROMPT)
        return out

    caches = {name: each.new_cache(batch_size=1, max_seq_len=ids.shape[1])
              for name, each in (("image", model), ("text", model), ("plain", plain))}
    model(ids[:, prompt], images=images, cache=caches["image"])
    model(text_ids[:, prompt], cache=caches["text"])
    plain(text_ids[:, prompt], cache=caches["plain"])
    mask = tile_mask_of(ids[:, prompt], images, image_id=IMAGE)
    past = twin(input_ids=ids[:, prompt], pixel_values=images.pixels,
                aspect_ratio_ids=images.aspect_ids, aspect_ratio_mask=images.tile_mask.long(),
                cross_attention_mask=mask, use_cache=True)
    past = getattr(past, "cache", None) or past.past_key_values
    # An image's layers keep the image; the text's are cut back to the prompt after each round.
    texts = [layer for i, layer in enumerate(past.layers)
             if i not in twin.config.text_config.cross_attention_layers]

    def theirs_step(at):
        return twin(input_ids=ids[:, at : at + 1], cache=past, use_cache=True,
                    cross_attention_mask=mask[:, -1:],
                    position_ids=torch.tensor([[at]])).logits

    def theirs_decode():
        for at in range(N_PROMPT, N_PROMPT + N_DECODED):
            out = theirs_step(at)
        for layer in texts:
            layer.keys = layer.keys[:, :, :N_PROMPT].clone()
            layer.values = layer.values[:, :, :N_PROMPT].clone()
        return out

    contestants = {
        "ours with an image": lambda: decode(
            lambda at: model(ids[:, at : at + 1], cache=caches["image"]), caches["image"]),
        "transformers with an image": theirs_decode,
        "ours without an image": lambda: decode(
            lambda at: model(text_ids[:, at : at + 1], cache=caches["text"]), caches["text"]),
        "the text model": lambda: decode(
            lambda at: plain(text_ids[:, at : at + 1], cache=caches["plain"]), caches["plain"]),
    }
    torch.testing.assert_close(contestants["ours with an image"](),
                               contestants["transformers with an image"](), rtol=1e-3, atol=1e-3)
    times = race(contestants, n_rounds=N_ROUNDS, clock=time.process_time)
    return [row(f"decoding {N_DECODED} tokens after {N_PROMPT}", times, slow, fast)
            for slow, fast in (("transformers with an image", "ours with an image"),
                               ("ours with an image", "ours without an image"),
                               ("ours without an image", "the text model"))]


def photo_row() -> dict:
    pixels = np.random.default_rng(0).integers(0, 256, (3000 // 8, 4000 // 8, 3), np.uint8)
    photo = Image.fromarray(pixels).resize((4000, 3000), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=90)
    data, tiling = file.getvalue(), Tiling(size_px=560)
    times = race({"photo": lambda: split([[data]], tiling)}, n_rounds=N_ROUNDS,
                 clock=time.process_time)
    tracemalloc.start()
    split([[np.asarray(photo)]], tiling)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = {"what": "a 12-megapixel JPEG to tiles", "seconds": statistics.median(times["photo"]),
             "python_peak_bytes": peak}
    print(found, flush=True)
    return found


def main() -> None:
    torch.set_num_threads(1)
    model = loud(TEXT, VISION, cross_layers=(3, 7))
    twin = twin_of(model)
    twin.set_attn_implementation("sdpa")
    images = pictures([[6]], config=VISION)
    rows = [encoder_row(model, twin, images), *decoding_rows(model, twin, images), photo_row()]
    print("written:", write("vision", {"rows": rows}, packages=("torch", "transformers")))


if __name__ == "__main__":
    main()
