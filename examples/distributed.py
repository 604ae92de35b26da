"""Two ranks train one model together with torch.distributed: on two GPUs with nccl where there are two, else on CPUs.

    python examples/distributed.py

localrun starts a process for each rank and tells it, as torchrun does, which one it is and where the others meet
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT). Needs torch: `pip install torch`.
"""

import sys

import localrun

RANKS = 2


def train(steps: int) -> dict[str, object]:
    """Fit a line to this rank's share of the data, gradients averaged over the ranks; returns what this rank has."""
    import os

    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= RANKS
    dist.init_process_group("nccl" if on_gpu else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 64, device=device)[rank::ranks].unsqueeze(1)
    model = DistributedDataParallel(torch.nn.Linear(1, 1).to(device), device_ids=[device.index] if on_gpu else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(steps):
        loss = torch.nn.functional.mse_loss(model(x), 3 * x + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    total = torch.tensor([rank + 1.0], device=device)
    dist.all_reduce(total)
    weight, bias = (float(parameter.detach()) for parameter in model.module.parameters())
    print(f"rank {rank} of {ranks} on {device}: y = {weight:.2f} x + {bias:.2f}")
    dist.destroy_process_group()
    return {"rank": rank, "weight": round(weight, 3), "bias": round(bias, 3), "sum of ranks": float(total)}


def main() -> None:
    """Start the ranks, on GPUs if this machine has them, and print what each returned."""
    try:
        import torch
    except ImportError:
        sys.exit("this example needs torch: pip install torch")
    gpus = RANKS if torch.cuda.device_count() >= RANKS else 0
    together = localrun.function(nproc_per_node=RANKS, gpus=gpus, env_variables={"OMP_NUM_THREADS": 1})(train)
    run = together.run(100)
    for result in run.result():
        print(result)
    print(run.logs(rank=1), end="")


if __name__ == "__main__":
    main()
