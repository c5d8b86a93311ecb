"""Draw the README's picture: one sentence said a place too late, as cross entropy and as AXE see
it.

Takes seconds on any CPU and writes shifted_sentence.png beside this file:

    python examples/figures/shifted_sentence.py
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from axe_hf import axe_loss

# 1. A target, and a model that says it one place too late, after a blank.
TARGET = ["it", "tastes", "pretty", "good", "</s>"]
VOCABULARY = [*TARGET, "ε"]
BLANK = len(VOCABULARY) - 1
SAID = ["ε", "it", "tastes", "pretty", "good"]

ids = torch.tensor([[VOCABULARY.index(word) for word in SAID]])
labels = torch.tensor([[VOCABULARY.index(word) for word in TARGET]])
# Each position gives 0.85 to the token it says and 0.03 to each other.
probabilities = torch.full((1, len(SAID), len(VOCABULARY)), 0.03)
probabilities.scatter_(2, ids[..., None], 0.85)
logits = probabilities.log()

# 2. The two losses, in nats.
cross_entropy = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum").item()
axe = axe_loss(
    logits, labels, blank_token_id=BLANK, delta=1.0, reduction="sum", return_alignment=True
)
print(f"cross entropy {cross_entropy:.2f} nats, AXE {axe.loss.item():.2f} nats")

# 3. The picture: what each loss asks of each position.
costs = -logits[0].T  # (vocab, canvas)
positions = axe.alignment.target_to_position[0].tolist()
is_aligned = axe.alignment.is_aligned[0].tolist()
position_to_target = axe.alignment.position_to_target[0].tolist()
figure = Figure(figsize=(9, 3.6), layout="constrained")
for number, (title, loss) in enumerate(
    [("cross entropy", cross_entropy), ("aligned cross entropy", axe.loss.item())]
):
    axes = figure.add_subplot(1, 2, number + 1)
    axes.imshow(costs, cmap="Blues_r", aspect="auto")
    if number == 0:
        asked = list(enumerate(range(len(TARGET))))
    else:
        asked = [(j, BLANK if i < 0 else i) for j, i in enumerate(position_to_target)]
    axes.plot(*zip(*asked, strict=True), "o", color="#d62728", markersize=11, label="asked for")
    skipped = [(positions[i], i) for i in range(len(TARGET)) if number and not is_aligned[i]]
    if skipped:
        axes.plot(*zip(*skipped, strict=True), "x", color="#d62728", markersize=10, label="skipped")
    axes.set_xticks(range(len(SAID)), SAID)
    axes.set_yticks(range(len(VOCABULARY)), VOCABULARY)
    axes.set_xlabel("what the model says at each position")
    axes.set_title(f"{title}: {loss:.1f} nats")
    axes.legend(loc="upper right", framealpha=0.9)
figure.axes[0].set_ylabel("token")
figure.savefig(Path(__file__).with_name("shifted_sentence.png"), dpi=110)
