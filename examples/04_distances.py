"""Slide 4: the distances.

Slide: feature vectors are compared by Euclidean distance, cosine similarity or Manhattan distance; from
[1, 2, 3] to [4, 5, 6] these are 5.196, 0.9746 and 9.
Errors: the gradient of its Euclidean distance, the square root of a sum, is NaN where both embeddings are
equal. One such pair makes all weights NaN.
Output: distances, for which lower is closer. The cosine similarity, for which higher is closer, has the
slide's name. The gradient at equal embeddings is 0.
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
digits = tw.data.load_digits()
flat = np.stack(digits.images[:200]).reshape(200, -1) / 255
apart = tw.distances.euclidean(flat, flat, pairwise=True)
print(
    "all pairs of 200 digits:", apart.shape, "nearest to the first:", digits.labels[apart[0].argsort()[1:6]]
)

x = torch.ones(1, 4, requires_grad=True)
torch.sqrt(((x - x.detach()) ** 2).sum(1)).backward()
print("\ngradient at equal inputs, as on the slide:", x.grad[0].tolist())
x.grad = None
tw.distances.euclidean(x, x.detach()).backward()
print("gradient at equal inputs, here:           ", x.grad[0].tolist())
