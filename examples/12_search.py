"""Slide 12: image similarity search.

Slide: embed a collection once, then find the nearest embeddings of a query.
Errors: none. Its code assumes a layer named base_network, which the slide mentions. The networks of slides
1, 10 and 11 do not name theirs, so give it that name first.
Output: a gallery on disk, in which images are enrolled, searched, named (or called unknown) and removed.
12_search.png shows three queries with their results. Naming is stricter than searching: its threshold gives
a name to at most one stranger in five, so a digit in doubt is called unknown.
"""

import shutil

import twinned as tw

digits = tw.data.load_digits()
known, held_out, novel = (digits.with_classes(list(names)) for names in ("01256", "38", "479"))
model = tw.train(known, recipe="glyph", image_size=24, steps=60, validation=held_out, seed=0)

shutil.rmtree("12_digits.gallery", ignore_errors=True)
enrolled, asked = novel.images[60:120], novel.images[:3]  # the queries: a 4, a 7 and a 9
labels = novel.labels[60:120].tolist()
with model.gallery("12_digits.gallery") as gallery:
    gallery.add(enrolled, labels, progress=False)
    print(gallery, "holds", gallery.labels())
    for image, label in zip(asked, novel.labels, strict=False):
        hits = gallery.search(image, k=6)
        print(f"like this {label}:", ", ".join(f"{hit.label} ({hit.distance:.3f})" for hit in hits))

    probes, truth = novel.images[120:320], novel.labels[120:320].tolist()
    answers = [answer.label for answer in gallery.identify(probes, fpir=0.2)]
    right = sum(said == true for said, true in zip(answers, truth, strict=True))
    unknown = answers.count(None)
    print(f"200 other digits: {right} named rightly, {200 - right - unknown} wrongly, {unknown} unknown")
    strangers = gallery.identify(held_out.images[:200], fpir=0.2)  # 3 and 8 are not enrolled
    print(f"200 strangers: {sum(answer.label is None for answer in strangers)} unknown, as they should be")

    gallery.remove(label="9")
    print("without the nines:", gallery.labels())

vectors = model.embed(list(enrolled))
apart = model.distances(model.embed(list(asked)), vectors)
found = [[tw.plots.Shown(enrolled[n], labels[n], float(row[n])) for n in row.argsort()[:6]] for row in apart]
queries = [tw.plots.Shown(image, label) for image, label in zip(asked, novel.labels, strict=False)]
tw.plots.save(tw.plots.neighbours(queries, found, threshold=model.threshold), "12_search.png", force=True)
