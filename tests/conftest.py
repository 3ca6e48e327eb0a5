"""One thread a process, as in every run: several threads wait for each other longer than they compute."""

import torch

torch.set_num_threads(1)
