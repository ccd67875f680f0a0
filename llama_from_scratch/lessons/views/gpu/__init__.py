"""Pictures and widgets of the emulated CUDA machine.

They show a block's shared memory step by step, races, sectors and banks.

Every picture is drawn from a `Trace` of the reader's own kernel (kernels/emulator/trace.py), so it
shows what the kernel really does. `steps` and `barriers` are widgets; the frames are pictures that
the reader's own widgets can use.

    source       program, listing, checked_trace: CUDA source that was written in a notebook
    stepping     steps, step_frame: a block's shared memory at each barrier
    racing       barriers, source_frame: what happens without a barrier
    accesses     sectors_frame, banks_frame: one access of a warp
    drawing      shared parts of these pictures

Used in the chapter on the CUDA machine (30).
"""

from llama_from_scratch.lessons.views.gpu.accesses import banks_frame as banks_frame
from llama_from_scratch.lessons.views.gpu.accesses import sectors_frame as sectors_frame
from llama_from_scratch.lessons.views.gpu.racing import barriers as barriers
from llama_from_scratch.lessons.views.gpu.racing import source_frame as source_frame
from llama_from_scratch.lessons.views.gpu.source import checked_trace as checked_trace
from llama_from_scratch.lessons.views.gpu.source import listing as listing
from llama_from_scratch.lessons.views.gpu.source import program as program
from llama_from_scratch.lessons.views.gpu.stepping import step_frame as step_frame
from llama_from_scratch.lessons.views.gpu.stepping import steps as steps
