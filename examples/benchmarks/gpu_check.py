"""Checks the Triton kernels on a GPU and times the losses there: the whole GPU check in one call.

    python examples/benchmarks/gpu_check.py --output gpu_check.csv

Takes about three minutes and 12 GB of GPU memory. Prints the environment, then one line per check
(fresh random inputs against float64 and against the PyTorch code) and per timing: medians with the
20th and 80th percentile, in milliseconds, forward and backward together, and the peak of memory
over what the inputs take, in MiB. The losses take turns, so that all see the same clock. Exits with
1 if a check fails, with 2 without a GPU or Triton.
"""

import argparse
import csv
import itertools
import subprocess
import sys
from pathlib import Path

import torch
from measuring import quantiles
from torch.nn import functional as F

from axe_hf import axe_loss, linear_axe_loss
from axe_hf.cmlm import AxeOptions, AxeTargets
from axe_hf.kernels import align_log_probs, axe_along_path, is_triton_available, path_gradient

BLANK, DELTA = 0, 4.0


def make_case(batch, target, canvas, vocab, dtype, is_ragged=False, is_observed=False):
    """Returns logits and what is to be said."""
    logits = (3 * torch.randn(batch, canvas, vocab, device="cuda")).to(dtype)
    tokens = torch.randint(1, vocab, (batch, target), device="cuda")
    lengths = torch.full((batch,), target, device="cuda")
    canvas_lengths = observed = None
    if is_ragged:
        canvas_lengths = torch.randint(1, canvas + 1, (batch,), device="cuda")
        lengths = torch.randint(0, target + 1, (batch,), device="cuda")
    if is_observed:
        lengths = lengths if canvas_lengths is None else canvas_lengths
        observed = torch.rand(batch, canvas, device="cuda") < 0.3
        observed &= torch.arange(canvas, device="cuda") < lengths[:, None]
    tokens = tokens.masked_fill(torch.arange(target, device="cuda") >= lengths[:, None], BLANK)
    return logits, AxeTargets(tokens, lengths, canvas_lengths, observed)


def torch_result(case, smoothing):
    """Loss per sentence, gradient and path by the PyTorch code."""
    logits, targets = case
    tokens, lengths = targets.tokens, targets.target_lengths
    is_padding = torch.arange(tokens.shape[1], device="cuda") >= lengths[:, None]
    leaf = logits.clone().requires_grad_()
    output = axe_loss(
        leaf,
        tokens.masked_fill(is_padding, -100),
        blank_token_id=BLANK,
        delta=DELTA,
        canvas_lengths=targets.canvas_lengths,
        observed_mask=targets.observed_mask,
        label_smoothing=smoothing,
        reduction="none",
        return_alignment=True,
        implementation="torch",
    )
    loss = output.loss
    loss.backward(torch.linspace(-1, 2, len(loss), device="cuda").to(loss.dtype))
    return loss.detach(), leaf.grad, output.alignment.position_to_target


def kernel_result(case, smoothing):
    """The same by the kernels."""
    options = AxeOptions(BLANK, DELTA, smoothing)
    loss, alignment, path = axe_along_path(*case, options)
    upstream = torch.linspace(-1, 2, len(loss), device="cuda").to(loss.dtype)
    grad = path_gradient(case[0], path, upstream, options, False)
    return loss, grad, alignment["position_to_target"]


def largest_error(found, exact):
    """Largest difference over the largest magnitude."""
    if not found.isfinite().all():
        return float("inf")
    return ((found - exact).abs().max() / exact.abs().max().clamp(min=1e-9)).item()


def check_values(report):
    """Kernels may be no further from float64 than twice the PyTorch code, but for a few roundings.

    Where rounding has decided a tie otherwise, the gradient is that of another path of the same
    cost: not compared.
    """
    shapes = [(8, 21, 33, 1003), (5, 40, 7, 515), (3, 300, 280, 64), (2, 0, 5, 99), (4, 3, 1, 4104)]
    kinds = ((False, False, 0.0), (True, False, 0.1), (True, True, 0.1))
    types = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    for dtype, shape, kind in itertools.product(types, shapes, kinds):
        is_ragged, is_observed, smoothing = kind
        if is_observed:
            shape = (shape[0], shape[2], *shape[2:])
        case = make_case(*shape, dtype, is_ragged, is_observed)
        exact = torch_result((case[0].double(), case[1]), smoothing)
        plain, found = torch_result(case, smoothing), kernel_result(case, smoothing)
        is_same = [(result[2] == exact[2]).all(1) for result in (plain, found)]
        both = is_same[0] & is_same[1]
        rounding = 32 * torch.finfo(torch.promote_types(dtype, torch.float32)).eps
        worst = largest_error(found[0], exact[0]) / (
            2 * largest_error(plain[0], exact[0]) + rounding
        )
        if both.any():
            errors = [largest_error(result[1][both], exact[1][both]) for result in (plain, found)]
            worst = max(worst, errors[1] / (2 * errors[0] + rounding))
        same = f"of the error allowed; {int(is_same[1].sum())} of {len(both)} paths as in float64"
        name = f"{str(dtype)[6:]} {shape} ragged={is_ragged} observed={is_observed}"
        report("check", name, worst, same, worst <= 1)


def check_tests(report):
    """Runs the tests of the kernels, which take the GPU when there is one."""
    folder = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:])
    report("check", "tests/kernels", done.returncode, " ".join(last), done.returncode == 0)


def time_all(functions, rounds):
    """Runs the functions in turn; returns (milliseconds of each round, peak MiB) per name."""
    times = {name: [] for name in functions}
    peaks = {}
    for name, function in functions.items():
        for _ in range(3):  # compiles, and warms up
            function()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    for _ in range(rounds):
        for name, function in functions.items():
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            # the host runs ahead of the device, as it does in training
            torch.cuda._sleep(2_000_000)
            start.record()
            function()
            stop.record()
            torch.cuda.synchronize()
            times[name].append(start.elapsed_time(stop))
    return {name: (times[name], peaks[name]) for name in functions}


def time_losses(report, batch, length, vocab, rounds):
    """Cross entropy and AXE on the same bf16 logits, forward and backward."""
    leaf, targets = make_case(batch, length, length, vocab, torch.bfloat16)
    tokens = targets.tokens
    leaf.requires_grad_()

    def cross_entropy(logits):
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())

    def axe(name):
        return lambda logits: axe_loss(
            logits, tokens, blank_token_id=BLANK, delta=DELTA, implementation=name
        )

    def step(loss):
        def run():
            loss(leaf).backward()
            leaf.grad = None

        return run

    def kernels_only(inplace):
        upstream, options = torch.ones(batch, device="cuda"), AxeOptions(BLANK, DELTA)

        def run():
            data = leaf.detach()
            _, _, path = axe_along_path(data, targets, options)
            path_gradient(data, path, upstream, options, inplace)

        return run

    functions = {
        "cross entropy, eager": step(cross_entropy),
        "cross entropy, compiled": step(torch.compile(cross_entropy)),
        "AXE, kernels only": kernels_only(False),
        "AXE, torch": step(axe("torch")),
        "AXE, triton": step(axe("triton")),
    }
    results = time_all(functions, rounds)
    results |= time_all({"AXE, kernels only, in place": kernels_only(True)}, rounds)
    report_times(report, f"{batch}x{length}x{vocab} bf16", results, "cross entropy, compiled")


def time_alignment(report, rounds):
    """The DP alone at 64 x 64 x 64, a hundred launches at a time."""
    token_log_probs = -9 * torch.rand(64, 64, 64, device="cuda")
    blank_log_prob = -9 * torch.rand(64, 64, device="cuda")
    lengths = torch.full((64,), 64, device="cuda")
    case = (token_log_probs, blank_log_prob, AxeTargets(None, lengths), DELTA)
    align_log_probs(*case)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):  # the device's time, without that of the host
        for _ in range(100):
            align_log_probs(*case)
    results = time_all({"DP, triton, 100 times": graph.replay}, rounds)
    report_times(report, "64x64x64", results, "DP, triton, 100 times")


def time_linear(report, batch, length, vocab, rounds, hidden=512):
    """Projection and loss together, forward and backward, with gradients for states and weight."""
    states = torch.randn(batch, length, hidden, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(vocab, hidden, device="cuda", dtype=torch.bfloat16) / hidden**0.5
    tokens = torch.randint(1, vocab, (batch, length), device="cuda")
    leaves = (states.requires_grad_(), weight.requires_grad_())

    def projected(states, weight):
        return F.cross_entropy(F.linear(states, weight).flatten(0, 1), tokens.flatten())

    def axe(name):
        return lambda *leaves: linear_axe_loss(
            *leaves, tokens, blank_token_id=BLANK, delta=DELTA, implementation=name
        )

    def step(loss):
        def run():
            loss(*leaves).backward()
            states.grad = weight.grad = None

        return run

    functions = {
        "projection + cross entropy, eager": step(projected),
        "projection + cross entropy, compiled": step(torch.compile(projected)),
        "linear AXE, torch": step(axe("torch")),
        "linear AXE, triton": step(axe("triton")),
    }
    where, baseline = f"{batch}x{length}x{vocab} bf16, d={hidden}", list(functions)[1]
    report_times(report, where, time_all(functions, rounds), baseline)


def report_times(report, where, results, baseline):
    """Reports medians, percentiles, memory and the ratio to the baseline."""
    base = quantiles(results[baseline][0])[0]
    for name, (times, peak) in results.items():
        median, low, high = quantiles(times)
        note = f"ms, p20 {low:.3f}, p80 {high:.3f}, peak {peak:.0f} MiB, {median / base:.3f} x "
        note += baseline
        report("time", f"{where}: {name}", median, note, True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", help="CSV file to write: kind, name, value, note")
    parser.add_argument("--rounds", type=int, default=50, help="timings per loss (default 50)")
    parser.add_argument("--seed", type=int, help="of the inputs (default: fresh)")
    args = parser.parse_args()
    if not torch.cuda.is_available() or not is_triton_available():
        print("gpu_check needs a GPU that torch.cuda sees, and Triton (pip install triton).")
        return 2
    seed = torch.seed() if args.seed is None else args.seed
    torch.manual_seed(seed)
    table, is_right = [], True

    def report(kind, name, value, note, is_fine):
        nonlocal is_right
        is_right &= is_fine
        table.append((kind, name, f"{value:.6g}", note))
        print(f"{'' if is_fine else 'WRONG '}{kind}: {name}: {value:.6g} {note}", flush=True)

    import triton

    for name, value in (
        ("device", torch.cuda.get_device_name()),
        ("torch", torch.__version__),
        ("cuda", torch.version.cuda),
        ("triton", triton.__version__),
        ("seed", seed),
    ):
        table.append(("environment", name, value, ""))
        print(f"{name}: {value}")
    check_tests(report)
    check_values(report)
    time_alignment(report, args.rounds)
    for batch in (64, 256):
        time_losses(report, batch, 64, 32000, args.rounds)
        time_linear(report, batch, 64, 32000, args.rounds)
    if args.output:
        with open(args.output, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("kind", "name", "value", "note"), *table])
    print("all checks passed" if is_right else "SOME CHECKS FAILED")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
