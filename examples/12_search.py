"""Slide 12: image similarity search.

Slide: embed a collection once, then find the five nearest embeddings of a query by Euclidean distance, with
scikit-learn's NearestNeighbors.
Errors: none. Its code assumes a layer named base_network, which the slide states. The networks of slides 1,
10 and 11 do not name theirs.
Output: slide 1's network embeds Greek letters, which it never saw; the five nearest of every letter, and how
many of them are the same letter: less than half. 12_search.png shows three queries with their results. Right
ones have a tick; most others look little like the query.
"""

from sklearn.neighbors import NearestNeighbors

import twinned as tw

known, novel = tw.data.load_letters(["latin", "cyrillic"], size=28), tw.data.load_letters(["greek"], size=28)
model = tw.train(known, recipe="deck", steps=150, seed=0)

database_embeddings = model.embed(list(novel.images))
print("database:", database_embeddings.shape)


def find_similar_images(query_embedding, database_embeddings, k=5):
    nn = NearestNeighbors(n_neighbors=k, metric="euclidean").fit(database_embeddings)
    distances, indices = nn.kneighbors([query_embedding])
    return distances[0], indices[0]


right = 0
for place in range(0, len(novel), 6):
    _, indices = find_similar_images(database_embeddings[place], database_embeddings, k=6)  # with itself
    right += (novel.labels[indices[1:]] == novel.labels[place]).sum()
print(f"{right / (5 * len(range(0, len(novel), 6))):.1%} of the five nearest are the same letter")

names = [label.removeprefix("greek-") for label in novel.labels]
queries, found = [], []
for letter in ("capital-omega", "small-alpha", "small-beta"):
    place = names.index(letter)
    distances, indices = find_similar_images(database_embeddings[place], database_embeddings, k=6)
    queries.append(tw.plots.Shown(novel.images[place], names[place]))
    hits = zip(indices[1:], distances[1:], strict=True)
    found.append([tw.plots.Shown(novel.images[i], names[i], float(d)) for i, d in hits])
tw.plots.save(tw.plots.neighbours(queries, found), "12_search.png", force=True)
