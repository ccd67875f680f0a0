"""The device that a command runs on."""


def usable_device(name: str) -> str:
    """Returns `name`, such as "cuda:1". Raises ValueError if PyTorch cannot use that device."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(),
             "mps": torch.backends.mps.is_available()}
    if not there.get(name.split(":")[0], False):
        usable = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise ValueError(f"PyTorch cannot use the device {name!r} here; it can use {usable}. "
                         "For details, run: llama doctor")
    return name
