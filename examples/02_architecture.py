"""Slide 2: the architecture, drawn.

Slide: two branches, one set of weights, a comparison of both feature vectors.
Errors: none. Its code draws two boxes and a circle, which are the same for every network.
Output: a drawing of any network, as PNG and as SVG. 02_architecture.png has the encoder of slide 10, for
faces, with a Euclidean distance; its two branches share one set of weights. 02_koch2015.svg has Koch's
network of 38,951,745 parameters.
"""

import twinned as tw

face = tw.SiameseNetwork(tw.encoders.deck(filters=(64, 128), dense=128), tw.heads.Distance("euclidean"))
for file in ("02_architecture.png", "02_architecture.svg"):
    tw.plots.save(tw.plots.architecture(face), file, force=True)

koch = tw.SiameseNetwork(tw.encoders.Koch2015(), tw.heads.WeightedL1())
tw.plots.save(tw.plots.architecture(koch), "02_koch2015.svg", force=True)

print(face.summary())
print("\ndrawn: 02_architecture.png, 02_architecture.svg, 02_koch2015.svg")
