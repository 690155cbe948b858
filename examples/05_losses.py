"""Slide 5: contrastive and triplet loss.

Slide: contrastive loss of the distances 0.2 (same) and 0.7 (different) with margin 1: 0.065. Triplet loss of
the values 0.1, 0.2 and 0.7 on squared distances with margin 0.2: 0.
Errors: its labels are int32, which TensorFlow does not multiply by floats. Its triplet example has two
dimensions, so distances are summed over the batch and one triplet can hide the cost of another.
Output: the slide's numbers, the hidden cost, and 05_losses.png with the direction in which each loss moves
every point. Contrastive loss pulls every point into its class (left) and pushes it away from nearer ones of
other classes (middle). Triplet loss (right) leaves points alone whose class is nearer by the margin: hollow.
"""

import torch

import twinned as tw

distance, same = torch.tensor([0.2, 0.7]), torch.tensor([True, False])
print("contrastive loss:", round(tw.losses.ContrastiveLoss(margin=1, factor=1)(distance, same).item(), 4))
print("with the factor 1/2 of Hadsell et al.:", round(tw.losses.ContrastiveLoss()(distance, same).item(), 4))


def triplet_costs(*triplets):
    anchor, positive, negative = torch.tensor(triplets).T[..., None]  # three times (n, 1)
    squared = tw.distances.squared_euclidean
    loss = tw.losses.TripletLoss(margin=0.2)
    return loss(squared(anchor, positive), squared(anchor, negative), reduction="none")


print("triplet loss:", triplet_costs([0.1, 0.2, 0.7]).mean().item())
both = [0.1, 0.2, 0.7], [0.1, 0.4, 0.2]  # the second is in the wrong order
anchor, positive, negative = torch.tensor(both).T
summed = ((anchor - positive) ** 2).sum() - ((anchor - negative) ** 2).sum() + 0.2  # the slide's sum
costs = ", ".join(f"{cost:.2f}" for cost in triplet_costs(*both).tolist())
print(f"two triplets cost {costs}; in one sum, as on the slide, {max(summed.item(), 0):.2f}")

torch.manual_seed(3)
labels = torch.arange(3).repeat_interleave(6)
middles = torch.tensor([[0.0, 0.0], [1.1, 0.2], [0.4, 1.0]])
points = (middles[labels] + 0.28 * torch.randn(18, 2)).requires_grad_()
first, second = torch.triu_indices(18, 18, 1)  # each pair once
distance, same = tw.distances.euclidean(points[first], points[second]), labels[first] == labels[second]
pairs = tw.losses.ContrastiveLoss(margin=1.0, factor=1)(distance, same, reduction="none")
triplets = tw.losses.embedding_loss(tw.losses.TripletLoss(0.2), distance="squared_euclidean")
fields = []
for name, value in {
    "Contrastive, same pairs": pairs[same].sum(),
    "Contrastive, different pairs": pairs[~same].sum(),
    "Triplet": triplets(points, labels),
}.items():
    (gradient,) = torch.autograd.grad(value, points, retain_graph=True)
    fields.append((name, -gradient))  # training moves each point this way
    print(f"{name}: no arrow at {int((gradient.norm(dim=1) < 1e-6).sum())} of 18 points")
tw.plots.save(tw.plots.forces(points.detach(), fields, labels.tolist()), "05_losses.png", force=True)
