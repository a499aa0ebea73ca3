"""The counterpart of examples/matrix_shared.lua: two 1024 x 1024 matrices multiplied by two
workers, in NumPy, one thread each. The factors come with the fork, the bands are pickled back.
Debian: python3-numpy.

    /usr/bin/python3 scripts/bench/matrix.py; scripts/run examples/matrix_shared.lua
"""

import os
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import multiprocessing  # noqa: E402

import numpy  # noqa: E402

SIZE, BAND, ROUNDS = 1024, 64, 7

a = numpy.arange(SIZE * SIZE, dtype=float).reshape(SIZE, SIZE) % 10
b = numpy.arange(SIZE * SIZE, dtype=float).reshape(SIZE, SIZE) * 7 % 10


def multiply(first):
    return a[first:first + BAND] @ b


if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            product = numpy.vstack(pool.map(multiply, range(0, SIZE, BAND)))
            times.append(time.perf_counter() - start)
    assert (product[:4] == a[:4] @ b).all()
    print(f"numpy: {sorted(times)[ROUNDS // 2]:.3f} s")
