"""Slide 5: contrastive and triplet loss, better.

Slide: both losses, each on pairs or triplets that are drawn beforehand.
Errors: those of 05_losses.py.
Output: slide 3's network, trained with each of them on batches of letters. Contrastive loss has a margin of
0.5, because embeddings have length 1. Triplet loss has the slide's margin and squared distances, on all
triplets of a batch, then on semi-hard ones. The last row is supervised contrastive loss, which compares each
image with the whole batch. All have an equal error rate of 6 to 7 %: on this network the choice matters
little once the margin fits, and contrastive loss with a margin of 1 has 10 %.
"""

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=24), tw.data.load_letters(["greek"], size=24)
triplet = {"loss": "triplet", "distance": "squared_euclidean", "margin": 0.2}
rows = {
    "contrastive": {"loss": "contrastive"},
    "triplet, all": triplet,
    "triplet, semi-hard": triplet | {"miner": "semi-hard"},
    "supervised contrastive": {"loss": "supcon"},
}
for name, options in rows.items():
    model = tw.train(
        known,
        recipe="glyph",
        encoder="deck_shared",
        image_size=24,
        steps=80,
        settings={"evaluations": 1},
        seed=0,
        progress=False,
        **options,
    )
    found = model.evaluate(novel, ways=20, progress=False)
    print(
        f"{name:22}  equal error rate {found.verification.eer:.3f}"
        f"  20-way one-shot {found.one_shot.accuracy:.3f}  (Greek letters, never seen)"
    )
