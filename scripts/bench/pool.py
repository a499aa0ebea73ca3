"""The measures of tidemill.lua with Python's multiprocessing.Pool (fork)."""

import multiprocessing
import statistics
import time

ROUNDS = 5
clock = time.perf_counter


def identity(x):
    return x


def is_prime(n):
    if n < 2:
        return False
    for d in range(2, int(n**0.5) + 1):
        if n % d == 0:
            return False
    return True


def count_primes(first, last):
    return sum(1 for n in range(first, last + 1) if is_prime(n))


def measure(name, count, f, rounds=ROUNDS):
    times = []
    for _ in range(rounds):
        start = clock()
        f()
        times.append((clock() - start) / count)
    print(f"{name} {statistics.median(times):.12f}", flush=True)


def start_map_join():
    pool = multiprocessing.Pool(2)
    pool.map(identity, [1, 2])
    pool.close()
    pool.join()


def main():
    multiprocessing.set_start_method("fork")
    measure("start_map_join", 1, start_map_join)
    with multiprocessing.Pool(2) as pool:
        many, fewer = list(range(1_000_000)), list(range(20_000))
        measure("map_default_chunks", len(many), lambda: pool.map(identity, many))
        measure("map_chunk_1", len(fewer), lambda: pool.map(identity, fewer, 1))

        def stream():
            for _ in pool.imap_unordered(identity, fewer, 1):
                pass

        measure("imap_unordered_chunk_1", len(fewer), stream, 3)

        times = []
        for i in range(5000):
            start = clock()
            pool.apply(identity, (i,))
            times.append(clock() - start)
        times.sort()
        print(f"apply_round_trip {times[len(times) // 2]:.12f}")
        print(f"apply_round_trip_p99 {times[int(len(times) * 0.99)]:.12f}", flush=True)

        def bulk():
            results = [pool.apply_async(identity, (i,)) for i in range(20_000)]
            for result in results:
                result.get()

        measure("async_bulk", 20_000, bulk, 3)
        text = "x" * (64 * 1024 * 1024)
        measure("string_64_mib", 1, lambda: pool.apply(len, (text,)))

        limit, block = 200_000, 2_000
        blocks = [(first, first + block - 1) for first in range(1, limit, block)]
        measure("cpu_plain", 1, lambda: count_primes(1, limit), 3)
        measure("cpu_two_workers", 1, lambda: pool.starmap(count_primes, blocks), 3)


if __name__ == "__main__":
    main()
