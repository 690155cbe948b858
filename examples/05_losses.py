"""Slide 5: contrastive and triplet loss.

Slide: pull images of one class together, push images of different classes away from each other.
Errors: its code multiplies labels of type int32 by distances of type float, which TensorFlow refuses. Its
example passes an array of two dimensions to the triplet loss, so distances are summed over the batch. With
slide 6's labels of shape (n,) and distances of shape (n, 1), there are n x n costs.
Output: both losses, and 05_losses.png with the direction in which each moves every point. Contrastive loss
pulls all images of a class together and pushes other classes to its margin. Triplet loss is 0 as soon as the
order is right.
"""

import torch

import twinned as tw

torch.manual_seed(3)
labels = torch.arange(3).repeat_interleave(6)
middles = torch.tensor([[0.0, 0.0], [1.1, 0.2], [0.4, 1.0]])
points = (middles[labels] + 0.28 * torch.randn(18, 2)).requires_grad_()

apart = tw.distances.euclidean(points, points, pairwise=True)
same = labels[:, None] == labels[None]
upper = torch.ones_like(same).triu(1)  # each pair once
contrastive = tw.losses.ContrastiveLoss(margin=0.8)(apart[upper], same[upper])

anchor, positive, negative = tw.miners.SemiHard()(apart.detach(), labels)
triplet = tw.losses.TripletLoss(margin=0.2)(apart[anchor, positive], apart[anchor, negative])

figures = []
for name, loss in (("Contrastive loss", contrastive), ("Triplet loss, semi-hard", triplet)):
    (gradient,) = torch.autograd.grad(loss, points, retain_graph=True)
    figures.append(
        (f"{name}: {loss.item():.3f}", -gradient)
    )  # the direction in which training moves each point
    print(f"{name}: {loss.item():.4f}; {int((gradient.norm(dim=1) < 1e-6).sum())} of 18 points are content")

drawn = tw.plots.forces(points.detach(), figures, labels.tolist())
tw.plots.save(drawn, "05_losses.png", force=True)

# The slide's loss with the labels of slide 6 (as floats): shapes (n,) and (n, 1).
wrong = torch.ones(18) * torch.ones(18, 1)
print("\nlabels (18,) times distances (18, 1):", tuple(wrong.shape), "- here that is refused:")
try:
    tw.losses.ContrastiveLoss()(torch.ones(18, 1), same[0])
except tw.TwinnedError as error:
    print(" ", error)
