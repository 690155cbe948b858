"""Slide 7: training, the slide's loop.

Slide: Adam, batches of 32 pairs, ten epochs (two here), contrastive loss on the output, a progress bar.
Errors: one array of pairs for a model of two inputs, which Keras refuses; labels of shape (n,) against
outputs of shape (n, 1), which makes n x n costs; pairs in slide 6's order, class by class, not shuffled.
Output: slide 1's network and slide 6's pairs in this loop, with these errors mended, on Latin letters of
28x28, and its equal error rate on Greek letters, which it never saw. The output is trained as a distance,
small for the same letter; slides 8 and 9 read it the other way round, as the last line.
"""

import numpy as np
import torch

import twinned as tw
from twinned.metrics.roc import eer

torch.manual_seed(0)
letters, novel = tw.data.load_letters(["latin"], size=28), tw.data.load_letters(["greek"], size=28)
letters = letters.subset(np.arange(0, len(letters), 2))  # every second image, to save time


def pixels(data):
    return torch.tensor(np.stack(data.images))[:, None] / 255  # floats in [0, 1]: (n, 1, 28, 28)


encoder = tw.encoders.deck((64,), image_size=(28, 28), channels=1)
network = tw.SiameseNetwork(encoder, tw.heads.deck("difference"))
left, right, same = map(torch.from_numpy, tw.data.make_pairs(letters.labels, scheme="deck", seed=0))
images = pixels(letters)
print(f"{len(same):,} pairs, {same.float().mean():.1%} of them the same letter")

optimizer = torch.optim.Adam(network.parameters())
loss_fn = tw.losses.ContrastiveLoss(margin=1.0, factor=1)
for epoch in range(2):
    values = []
    for batch in torch.randperm(len(same)).split(32):
        a, b = network.embed(images[left[batch]]), network.embed(images[right[batch]])
        loss = loss_fn(network.head.score(a, b), same[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
        if len(values) % 20 == 0:
            print(f"\repoch {epoch + 1}: {len(values) * 32:5} pairs, loss {np.mean(values):.4f}", end="")
    print()

network.eval()
left, right, same = map(torch.from_numpy, tw.data.make_pairs(novel.labels, pairs=4000, seed=1))
with torch.no_grad():
    vectors = network.embed(pixels(novel))
    output = network.head.score(vectors[left], vectors[right]).numpy()
print(f"Greek letters: equal error rate {eer(output, same.numpy()):.3f}")
print(f"the same output, read the other way round: {eer(1 - output, same.numpy()):.3f}")
