"""From image files to embeddings: Twinned's pipeline against the usual loop, in one run, turn and turn about.

    python benchmarks/embed.py --small images_background --photos lfw_crop96 --model MODEL --int8 logos27

The usual loop: Pillow opens and resizes each image, the same network runs in PyTorch, batches of 32.
Both read the same files from disk, and both are warmed up. Ratios are what counts. --device cuda, with
onnxruntime-gpu, runs the networks of both on a GPU; the table then names it and is kept beside the other.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from twinned import load_images, train
from twinned.data.preprocessing import ImageSpec, read_image
from twinned.data.readers import find_images
from twinned.inference.export import export_model
from twinned.inference.session import Graph, embed_stream
from twinned.nn.encoders import build
from twinned.nn.onnx_export import export_encoder
from twinned.nn.siamese import SiameseNetwork

RESULTS = Path(__file__).parent / "results" / "embed.md"


def usual_loop(network: SiameseNetwork, spec: ImageSpec, files: Sequence[str], device: str) -> np.ndarray:
    """What a user writes first: one thread decodes, PyTorch embeds, batches of 32."""
    found = []
    mode = "L" if spec.channels == 1 else "RGB"
    with torch.inference_mode():
        for start in range(0, len(files), 32):
            images = []
            for file in files[start : start + 32]:
                with Image.open(file) as image:
                    small = image.convert(mode).resize((spec.width, spec.height), Image.Resampling.BILINEAR)
                array = np.asarray(small, np.float32).reshape(spec.shape) / 255
                images.append(torch.from_numpy(array).permute(2, 0, 1))
            found.append(network.embed(torch.stack(images).to(device)).cpu())
    return torch.cat(found).numpy()


def ours(graph: Graph, spec: ImageSpec, files: Sequence[str]) -> np.ndarray:
    """Twinned's pipeline."""
    return np.concatenate([chunk.vectors for chunk in embed_stream(files, spec, graph)])


def decode_only(spec: ImageSpec, files: Sequence[str]) -> None:
    """The bound that decoding sets, on one thread."""
    for file in files:
        read_image(file, spec)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def in_turn(*runs: Callable[[], object], times: int) -> list[float]:
    """The median seconds of each, run turn and turn about after one warm-up."""
    for run in runs:
        run()
    taken = [[seconds(run) for run in runs] for _ in range(times)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def network_and_graph(
    encoder: str, spec: ImageSpec, folder: Path, device: str
) -> tuple[SiameseNetwork, Graph]:
    torch.manual_seed(0)
    made = build(encoder, image_size=(spec.height, spec.width), channels=spec.channels)
    network = SiameseNetwork(made, normalize=True, mean=spec.mean, std=spec.std).eval()
    path = folder / f"{encoder}{spec.height}.onnx"
    export_encoder(network, spec, path)
    graph = Graph(path, device=device)
    if graph.note is not None:
        raise SystemExit(graph.note)
    return network.to(device), graph


def compare(
    name: str, encoder: str, spec: ImageSpec, files: Sequence[str], folder: Path, times: int, device: str
) -> str:
    network, graph = network_and_graph(encoder, spec, folder, device)
    gap = np.abs(usual_loop(network, spec, files[:64], device) - ours(graph, spec, files[:64])).max()
    if gap > 0.05:  # a JPEG decoded at reduced scale is a slightly different picture
        raise SystemExit(f"{name}: the two disagree by {gap:g}")
    loop, pipeline, decoding = in_turn(
        lambda: usual_loop(network, spec, files, device),
        lambda: ours(graph, spec, files),
        lambda: decode_only(spec, files),
        times=times,
    )
    pixels = np.zeros((64, *spec.shape), np.uint8)
    alone = seconds(lambda: [graph(pixels) for _ in range(10)]) / 640 * len(files)
    cores = os.cpu_count() or 1
    bound = max((decoding + alone * cores) / cores, alone)
    speeds = f"{len(files) / loop:,.0f} | {len(files) / pipeline:,.0f} | {loop / pipeline:.2f}"
    bounds = f"{decoding / cores:.2f} | {alone:.2f} | {bound / pipeline:.0%}"
    return f"| {name} | {len(files)} | {speeds} | {bounds} |"


def network_alone(encoder: str, spec: ImageSpec, folder: Path, device: str) -> list[str]:
    """Our wrapper around a session against the bare session."""
    import onnxruntime

    _, graph = network_and_graph(encoder, spec, folder, device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    path = folder / f"{encoder}{spec.height}.onnx"
    bare = onnxruntime.InferenceSession(str(path), options, providers=graph.providers)
    name = bare.get_inputs()[0].name
    rows = []
    for batch in (1, 64):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *spec.shape), dtype=np.uint8)
        repeats = 400 // batch + 5
        a, b = in_turn(
            lambda n=repeats, p=pixels: [graph(p) for _ in range(n)],
            lambda n=repeats, p=pixels: [bare.run(["embedding"], {name: p}) for _ in range(n)],
            times=9,
        )
        rows.append(
            f"| {encoder} {spec.height}x{spec.width}, batch {batch} | {a / repeats * 1e3:.3f} ms |"
            f" {b / repeats * 1e3:.3f} ms | {a / b:.3f} |"
        )
    return rows


def eight_bits(labelled: Path, folder: Path) -> list[str]:
    """The pretrained encoder in eight bits against itself in 32, and what that costs.

    Half of the classes calibrate, the other half measure: see `twinned.inference.export.export_model`.
    """
    data = load_images(labelled)
    model = train(data, recipe="photo", steps=0, progress=False)
    found = export_model(model, folder / "int8", int8=data, progress=False)["int8"]
    full, small = (Graph(folder / "int8" / name) for name in ("encoder.onnx", "encoder_int8.onnx"))
    rows = []
    for batch in (1, 64):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *model.spec.shape), dtype=np.uint8)
        repeats = 400 // batch + 5
        a, b = in_turn(
            lambda n=repeats, p=pixels: [full(p) for _ in range(n)],
            lambda n=repeats, p=pixels: [small(p) for _ in range(n)],
            times=5,
        )
        cost = [
            f"{100 * found[when][what]:.1f}" for what in ("eer", "one_shot") for when in ("before", "after")
        ]
        rows.append(
            f"| {batch} | {a / repeats * 1e3:.2f} ms | {b / repeats * 1e3:.2f} ms | {a / b:.2f} |"
            f" {cost[0]} to {cost[1]} % | {cost[2]} to {cost[3]} % |"
        )
    ways = f"{found['ways']}-way one-shot"
    return [
        "",
        f"| int8, efficientnet_lite0, batch | 32 bits | 8 bits | ratio | EER | {ways} |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def cold_start(model: Path, image: str) -> str:
    """`twinned verify A B`, whole process, against importing torch alone."""
    program = Path(sys.executable).with_name("twinned")
    verify, importing = in_turn(
        lambda: subprocess.run([program, "verify", model, image, image], capture_output=True, check=False),
        lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True),
        times=7,
    )
    ratio = f"{verify / importing:.2f}"
    return f"| `twinned verify A B` | {verify:.2f} s | `import torch` | {importing:.2f} s | {ratio} |"


def memory(spec: ImageSpec, onnx: Path, file: str, count: int) -> float:
    """Peak memory in MB of a process that embeds one file so many times."""
    code = (
        "import sys, resource; from pathlib import Path\n"
        "from twinned.inference.session import Graph, embed_stream\n"
        "from twinned.data.preprocessing import ImageSpec\n"
        f"spec = ImageSpec(**{spec.model_dump()!r}); graph = Graph(Path(sys.argv[1]))\n"
        "for chunk in embed_stream((sys.argv[2] for _ in range(int(sys.argv[3]))), spec, graph): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(onnx), file, str(count)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=Path, help="a folder of small images (Omniglot)")
    parser.add_argument("--photos", type=Path, help="a folder of photographs (LFW)")
    parser.add_argument("--model", type=Path, help="a model folder, for the cold start")
    parser.add_argument("--int8", type=Path, help="a folder of labelled photographs, for eight bits")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of the networks")
    options = parser.parse_args()
    device = options.device
    gpu = [torch.cuda.get_device_name()] if device == "cuda" else []
    machine = [*gpu, platform.machine(), f"{os.cpu_count()} cores", f"torch {torch.__version__}"]
    lines = [
        f"Embedding, {', '.join(machine)}",
        "",
        "| what | images | usual loop, images/s | Twinned, images/s | ratio | decoding, s | network, s"
        " | of the bound |",
        "|---|---|---|---|---|---|---|---|",
    ]
    alone = ["", "| network alone | through Twinned | bare session | ratio |", "|---|---|---|---|"]
    rest = [""]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if options.small:
            files = find_images(options.small)[:5000]
            for side in (35, 56):
                spec = ImageSpec(height=side, width=side, channels=1, mean=(0.92,), std=(0.25,))
                name = f"small PNGs, conv4 {side} px"
                lines.append(compare(name, "conv4", spec, files, folder, options.times, device))
            alone += network_alone("conv4", ImageSpec(height=35, width=35, channels=1), folder, device)
            few, many = (memory(spec, folder / "conv456.onnx", files[0], n) for n in (1000, 20000))
            rest.append(f"Peak memory: {few:.0f} MB for 1,000 images, {many:.0f} MB for 20,000.")
        if options.photos:
            files = find_images(options.photos)[:2000]
            spec = ImageSpec(height=224, width=224, channels=3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
            lines.append(
                compare(
                    "JPEG photos, efficientnet_lite0",
                    "efficientnet_lite0",
                    spec,
                    files,
                    folder,
                    options.times,
                    device,
                )
            )
            alone += network_alone("efficientnet_lite0", spec, folder, device)
        if options.model and options.small:
            rest += ["", "| whole process | | against | | ratio |", "|---|---|---|---|---|"]
            rest.append(cold_start(options.model, find_images(options.small)[0]))
        if options.int8:
            alone += eight_bits(options.int8, folder)
    text = "\n".join([*lines, *alone, *rest]) + "\n"
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.with_stem("embed_cuda" if gpu else "embed").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
