"""The measures of sync.lua with Python's multiprocessing (fork)."""

import multiprocessing
import statistics
import time

ROUNDS = 3
clock = time.perf_counter


def measure(name, count, f):
    times = []
    for _ in range(ROUNDS):
        start = clock()
        f()
        times.append((clock() - start) / count)
    print(f"{name} {statistics.median(times):.12f}", flush=True)


def with_process(f, args=(), beside=None):
    process = multiprocessing.Process(target=f, args=args)
    process.start()
    if beside:
        beside()
    process.join()


def nothing():
    pass


def produce(queue, count):
    for i in range(count):
        queue.put(i)


def echo(there, back, count):
    for _ in range(count):
        back.put(there.get())


def pass_barrier(barrier, count):
    for _ in range(count):
        barrier.wait()


def main():
    multiprocessing.set_start_method("fork")

    def start_join():
        for _ in range(20):
            with_process(nothing)

    measure("process_start_join", 20, start_join)

    lock, semaphore = multiprocessing.Lock(), multiprocessing.Semaphore(1)

    def pairs(thing, count):
        for _ in range(count):
            thing.acquire()
            thing.release()

    measure("lock_unlock", 200_000, lambda: pairs(lock, 200_000))
    measure("semaphore_pair", 200_000, lambda: pairs(semaphore, 200_000))

    queue = multiprocessing.Queue()

    def consume(count):
        for _ in range(count):
            queue.get()

    measure(
        "queue_item",
        50_000,
        lambda: with_process(produce, (queue, 50_000), lambda: consume(50_000)),
    )

    there, back = multiprocessing.Queue(), multiprocessing.Queue()

    def round_trips():
        for i in range(2000):
            there.put(i)
            back.get()

    measure(
        "queue_round_trip", 2000, lambda: with_process(echo, (there, back, 2000), round_trips)
    )

    with multiprocessing.Manager() as manager:
        shared = manager.dict()

        def set_all():
            for i in range(2000):
                shared["key"] = i

        def get_all():
            for _ in range(2000):
                shared["key"]

        def new_keys():
            fresh = manager.dict()
            for i in range(2000):
                fresh[i] = i

        measure("dict_set", 2000, set_all)
        measure("dict_get", 2000, get_all)
        measure("dict_new_key", 2000, new_keys)

    barrier = multiprocessing.Barrier(2)
    measure(
        "barrier_pass",
        1000,
        lambda: with_process(
            pass_barrier, (barrier, 1000), lambda: pass_barrier(barrier, 1000)
        ),
    )


if __name__ == "__main__":
    main()
