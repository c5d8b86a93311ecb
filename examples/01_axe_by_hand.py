"""Aligned Cross Entropy by hand: a translation that is right, but one word late.

What it does: prints cross entropy and AXE of one prediction, and how AXE aligns the two.
Takes seconds on any CPU.

    python examples/01_axe_by_hand.py

Expected output: AXE is far below cross entropy (9.78 against 23.94 nats): it pays for the word too
many and for the one that is missing, not for every word in between. Then the family around it: a
word that two positions say costs 5.04 nats, or 0.31 where decoding makes one word of the two.
"""

import torch
from torch.nn.functional import cross_entropy

from axe_hf import axe_loss

# 1. A vocabulary, the target, and what a model predicts: the first word is a word too many.
words = ["<blank>", "it", "tastes", "pretty", "good", "though", "really"]
target = ["it", "tastes", "pretty", "good", "though"]
predicted = ["really", "it", "tastes", "pretty", "good"]


# 2. The model gives 95 % to its word at each position, and the rest to all the others.
def logits_of(predicted: list[str]) -> torch.Tensor:
    probs = torch.full((len(predicted), len(words)), 0.05 / (len(words) - 1))
    for position, word in enumerate(predicted):
        probs[position, words.index(word)] = 0.95
    return probs.log()[None]  # (batch, canvas, vocab)


logits = logits_of(predicted)
labels = torch.tensor([[words.index(word) for word in target]])  # (batch, target)

# 3. Cross entropy compares word by word, so every position is wrong.
print(f"cross entropy: {cross_entropy(logits[0], labels[0], reduction='sum'):5.2f} nats")

# 4. AXE takes the cheapest way to go through both from left to right. At each step it either aligns
# a target with a prediction, or skips a prediction (which then should be blank), or skips a target
# (which costs delta times its log-probability at the last position that was used).
axe = axe_loss(logits, labels, blank_token_id=0, delta=1.0, reduction="sum", return_alignment=True)
print(f"AXE:           {axe.loss:5.2f} nats\n")

# 5. The alignment it found.
print("canvas  predicted  should be")
for position, target_index in enumerate(axe.alignment.position_to_target[0].tolist()):
    aligned = "<blank>" if target_index < 0 else target[target_index]
    print(f"{position + 1:6}  {predicted[position]:<9}  {aligned}")
for index, is_aligned in enumerate(axe.alignment.is_aligned[0].tolist()):
    if not is_aligned:
        position = axe.alignment.target_to_position[0, index].item() + 1
        print(f'"{target[index]}" was left out, and paid for at position {position}')

# 6. The family around it. AXE calls a word wrong that two positions say. With repetition decoding
# makes one word of the two, and so does the loss; at a temperature all alignments count, each by
# its probability; and if no target may be skipped, that is CTC.
stutter = logits_of(["it", "tastes", "tastes", "pretty", "good", "though"])
family = {
    "AXE": {"delta": 1.0},
    "repetition": {"delta": 1.0, "allow_repetition": True},
    "all alignments": {"delta": 1.0, "allow_repetition": True, "temperature": 1.0},
    "CTC": {"delta": float("inf"), "allow_repetition": True, "temperature": 1.0},
}
print("\nit tastes tastes pretty good though")
for name, how in family.items():
    loss = axe_loss(stutter, labels, blank_token_id=0, reduction="sum", **how)
    print(f"{name + ':':<15} {loss:5.2f} nats")
