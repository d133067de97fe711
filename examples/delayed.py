"""dask.delayed on a manager. Functions of this very script run on the workers."""

import dask

import graphvine as gv


@dask.delayed
def count_primes(low: int, high: int) -> int:
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(low, 2), high))


if __name__ == "__main__":
    parts = [count_primes(n, n + 10_000) for n in range(0, 200_000, 10_000)]
    with gv.Manager() as m:
        total = dask.delayed(sum)(parts).compute(scheduler=m.get)
        print(f"{total:,} primes below 200,000")
