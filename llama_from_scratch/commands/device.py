"""The device that a command runs on."""


def usable_device(name: str) -> str:
    """Returns `name`, such as "cuda:1". Raises ValueError if PyTorch cannot use that device."""
    from llama_from_scratch.checkpoint.machine import refuse_absent_device

    refuse_absent_device(name)
    return name
