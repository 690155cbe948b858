"""Slide 4: the distances.

Slide: feature vectors are compared by Euclidean distance, cosine similarity or Manhattan distance; from
[1, 2, 3] to [4, 5, 6] these are 5.196, 0.9746 and 9.
Errors: the gradient of its Euclidean distance, the square root of a sum, is NaN where both embeddings are
equal. One such pair makes all weights NaN.
Output: the slide's three numbers; what each distance calls near; and the gradient at equal embeddings, 0.
"""

import numpy as np
import torch

import twinned as tw

one, other = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, 6.0]])
print("Euclidean distance:", tw.distances.euclidean(one, other)[0].round(3))
print("cosine similarity: ", tw.distances.cosine_similarity(one, other)[0].round(4), "(higher is closer)")
print("Manhattan distance:", tw.distances.manhattan(one, other)[0])

# A distance is lower for vectors that are closer. The cosine distance is 1 minus the similarity: it sees the
# direction alone, so [6, 8] is at distance 0 from [3, 4].
anchor = np.array([[3.0, 4.0]])
others = {"itself": [3, 4], "nearby": [3, 3], "same way, farther": [6, 8], "at a right angle": [-4, 3]}
print(f"\n{'to [3, 4] from':20}" + "".join(f"{name:>19}" for name in tw.distances.DISTANCES))
for name, vector in others.items():
    row = [tw.distances.get(d)(anchor, np.array([vector], float))[0] for d in tw.distances.DISTANCES]
    print(f"{name:20}" + "".join(f"{value:19.3f}" for value in row))

x = torch.ones(1, 4, requires_grad=True)
torch.sqrt(((x - x.detach()) ** 2).sum(1)).backward()
print("\ngradient at equal inputs, as on the slide:", x.grad[0].tolist())
x.grad = None
tw.distances.euclidean(x, x.detach()).backward()
print("gradient at equal inputs, here:           ", x.grad[0].tolist())
