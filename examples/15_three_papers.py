"""Slide 15: the three papers.

Slide: read Koch 2015, FaceNet 2015 and Chopra 2005.
Errors: the address that it gives for Koch, arXiv:1504.03641, is another paper's (Zagoruyko & Komodakis). Koch
et al. is at https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf.
Output: the three as recipes: the network of each at its own size, with its loss, and the distances of two
letters and of two images of one letter before training. Koch's has 38,951,745 parameters. Training them to
the papers' tasks takes minutes to hours: docs/papers.md has the commands, our figures and theirs.
"""

import numpy as np
import torch

import twinned as tw
from twinned.data.decoded import decode

letters = tw.data.load_letters(["latin"], size=105)
images = [letters.with_classes([f"latin-capital-{name}"]).images for name in ("a", "b")]
papers = {
    "koch2015": "Koch, Zemel & Salakhutdinov, ICML Deep Learning Workshop 2015",
    "facenet": "Schroff, Kalenichenko & Philbin, CVPR 2015, arXiv:1503.03832",
    "chopra2005": "Chopra, Hadsell & LeCun, CVPR 2005, doi:10.1109/CVPR.2005.202",
}
for name, paper in papers.items():
    config = tw.recipes.get(name)
    size, comparison = config.input, config.comparison
    torch.manual_seed(0)
    encoder = tw.encoders.create_encoder(
        config.encoder.name,
        image_size=(size.height, size.width),
        channels=size.channels,
        embedding_size=config.encoder.embedding_size,
    )
    head = tw.heads.create_head(
        comparison.head, distance=comparison.distance, embedding_size=encoder.embedding_size
    )
    network = tw.SiameseNetwork(encoder, head, normalize=comparison.normalize).eval()
    count = sum(p.numel() for p in network.parameters())
    print(f"{name}: {paper}")
    print(f"  {size.height}x{size.width}x{size.channels} to {encoder.embedding_size}, {count:,} parameters")
    distance = comparison.distance if comparison.head == "distance" else comparison.head
    print(f"  loss {config.loss.name}, distance {distance}")
    pixels = decode([images[0][0], images[0][1], images[1][0]], config.spec(), progress=False).pixels
    x = torch.from_numpy(np.moveaxis(pixels, 3, 1) / np.float32(255))
    with torch.no_grad():
        apart = network(x[[0, 0]], x[[1, 2]])
    print(f"  before training: A to A {apart[0]:.4f}, A to B {apart[1]:.4f}")
