"""The search that looks at all vectors, by products of eight bits and of single precision, against
faiss's flat index, 10 nearest, two threads, in turns in one process.

Needs the `bench` extra. The wheels of faiss and NumPy bring an OpenBLAS each, and neither knows
every new processor; one that it does not know gets slow loops. So where there is AVX-512 both are
told to use it (`OPENBLAS_CORETYPE`).
"""

import json
import statistics
import sys

import numpy as np
from common import alone, seconds

LIBRARIES = "numpy numba faiss-cpu"
SIZES, THREADS, K, ROUNDS = (64, 128, 384, 768, 1280), 2, 10, 3


def vectors(p):
    "Fit and 10 000 queries among 60 000 random vectors of `p` numbers: seconds, medians."
    import faiss
    from fashion_proto.core import flat

    lanes, rng = flat.LANES, np.random.default_rng(0)
    points, queries = (rng.normal(size=(n, p)).astype(np.float32) for n in (60_000, 10_000))

    def ours(metric, lanes):
        flat.LANES = lanes  # without them: single precision
        return flat.FlatSearch(points, metric).nearest(queries, K, THREADS)

    def peer(metric):
        index, asked = faiss.IndexFlatL2(p), queries
        if metric == "cosine":
            index, asked = faiss.IndexFlatIP(p), queries.copy()
            faiss.normalize_L2(asked)
        held = points.copy()
        if metric == "cosine":
            faiss.normalize_L2(held)
        index.add(held)
        return index.search(asked, K)

    out = []
    for metric in "euclidean", "cosine":
        ways = {
            "eight_bits": lambda: ours(metric, lanes),
            "single_precision": lambda: ours(metric, 0),
            "faiss_flat": lambda: peer(metric),
        }
        found = {name: way() for name, way in ways.items()}  # warm
        times = [{name: seconds(way)[0] for name, way in ways.items()} for _ in range(ROUNDS)]
        ratios = [turn["faiss_flat"] / turn["eight_bits"] for turn in times]
        (far, near), (other_far, other) = found["eight_bits"], found["single_precision"]
        assert (far == other_far).all() and (near == other).all()
        same = (near == found["faiss_flat"][1]).all(axis=1).mean()
        out.append(
            {"dimension": p, "metric": metric}
            | {name: statistics.median(turn[name] for turn in times) for name in ways}
            | {"ratio": statistics.median(ratios), "least": min(ratios), "same_faiss": float(same)}
        )
    return out


def measure():
    from fashion_proto.core.flat import LANES

    best = {"OPENBLAS_CORETYPE": "SkylakeX"} if LANES == 16 else {}
    parts = [alone(__file__, p, threads=THREADS, **best) for p in SIZES]
    return {"lanes": LANES, "environment": best, "vectors": [row for part in parts for row in part]}


if __name__ == "__main__":
    print(json.dumps(vectors(int(sys.argv[1]))))
