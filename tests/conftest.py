"""One thread: matrices here are small, and several test processes share the machine."""

import torch

torch.set_num_threads(1)
