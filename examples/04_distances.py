"""Slide 4: the distances.

What the slide says: Euclidean, Manhattan and cosine say how far apart two embeddings are.
Where its code goes wrong: its cosine is a similarity, higher for alike, under the name of a distance, so
that a threshold set for one reads the other backwards. And the gradient of its Euclidean distance, the
square root of a sum, is NaN where both embeddings are equal: one such pair ruins all weights.
What you see here: lower is closer, always; a similarity has a name of its own; the gradient at 0 is 0.
"""

import numpy as np
import torch

import twinned as tw

anchor = np.array([[3.0, 4.0]])
others = {"itself": [3, 4], "nearby": [3, 3], "same way, farther": [6, 8], "at a right angle": [-4, 3]}

print(f"{'to [3, 4] from':20}" + "".join(f"{name:>19}" for name in tw.distances.DISTANCES))
for name, other in others.items():
    row = [tw.distances.get(d)(anchor, np.array([other], float))[0] for d in tw.distances.DISTANCES]
    print(f"{name:20}" + "".join(f"{value:19.3f}" for value in row))

print("\nas a similarity:", tw.distances.cosine_similarity(anchor, np.array([[6.0, 8.0]]))[0])

# All pairs at once, and the same functions for PyTorch, with gradients.
digits = tw.data.digits()
flat = np.stack(digits.images[:200]).reshape(200, -1) / 255
apart = tw.distances.euclidean(flat, flat, all_pairs=True)
print(
    "all pairs of 200 digits:", apart.shape, "nearest to the first:", digits.labels[apart[0].argsort()[1:6]]
)

x = torch.ones(1, 4, requires_grad=True)
torch.sqrt(((x - x.detach()) ** 2).sum(1)).backward()
print("\ngradient at equal inputs, as on the slide:", x.grad[0].tolist())
x.grad = None
tw.distances.euclidean(x, x.detach()).backward()
print("gradient at equal inputs, here:           ", x.grad[0].tolist())
