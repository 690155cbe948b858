"""Slide 13: fine-tuning to a new task.

Slide: freeze a trained network, give it inputs of a new size, concatenate both vectors, and train a dense
layer of 64 and a softmax over num_classes on a new, related task.
Errors: its base model is a Siamese network of two inputs, and is called with one, which raises. Slide 10's
network has no new input size either: its dense layer fits one size, so images are resized here.
Output: slide 1's network of letters of 28x28, frozen, with the slide's new layers, learns a task of
num_classes = 4 on ten capitals of 64x64: is the left one a vowel, the right one, both, or none? It answers
over nine in ten pairs of new images rightly. Order matters in this task, so the vectors are concatenated.
|a - b| and a * b are the same for (A, B) and (B, A): they reach at most three in four, as the last line.
"""

import numpy as np
import torch

import twinned as tw

base = tw.train(tw.data.load_letters(["latin", "cyrillic"], size=28), recipe="deck", steps=150, seed=0)

capitals = tw.data.load_letters(["latin"], size=64, seed=1)  # a new size; the model resizes
capitals = capitals.with_classes([f"latin-capital-{letter}" for letter in "aeioubkmsx"])
vectors = torch.from_numpy(base.embed(list(capitals.images)))  # the base is frozen: one pass for all epochs
vectors = (vectors - vectors.mean(dim=0)) / (vectors.std(dim=0) + 1e-6)  # some values vary far more
rng = np.random.default_rng(0)
vowel = np.isin([label[-1] for label in capitals.labels], list("aeiou"))
known = rng.random(len(capitals)) < 0.7  # images to learn from


def pairs_of(images, count):
    """Draw pairs with their class: 0 none, 1 left, 2 right, 3 both; as many of each."""
    task, sides = np.arange(count) % 4, []
    for side in (1, 2):
        yes, no = images[vowel[images]], images[~vowel[images]]
        sides.append(np.where(task & side, rng.choice(yes, count), rng.choice(no, count)))
    return vectors[sides[0]], vectors[sides[1]], torch.from_numpy(task)


train, test = pairs_of(np.flatnonzero(known), 8000), pairs_of(np.flatnonzero(~known), 2000)
for concatenate in (True, False):
    torch.manual_seed(0)
    head = tw.heads.Relation([False] * 3 + [True], 128, hidden=64, concatenate=concatenate)
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    for _ in range(5):
        for batch in torch.randperm(len(train[2])).split(64):
            logits = head.logits(train[0][batch], train[1][batch])
            loss = torch.nn.functional.cross_entropy(logits, train[2][batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    accuracy = (head.logits(*test[:2]).argmax(dim=1) == test[2]).float().mean().item()
    print(f"{'concatenated' if concatenate else '|a - b| and a * b'}: {accuracy:.1%} of new pairs right")
