"""Plain functions, no dask: an executor like those of concurrent.futures, whose futures can be arguments."""

import hashlib

import graphvine as gv


def digest(text: str) -> str:
    for _ in range(10_000):
        text = hashlib.sha256(text.encode()).hexdigest()
    return text


def letters_in_common(one: str, two: str) -> int:
    return sum(a == b for a, b in zip(one, two, strict=True))


if __name__ == "__main__":
    with gv.Manager() as m, m.executor() as ex:
        for word, found in zip(("vine", "grape"), ex.map(digest, ("vine", "grape")), strict=True):
            print(word, found[:16])
        one, two = ex.submit(digest, "one"), ex.submit(digest, "two")
        print("letters in common:", ex.submit(letters_in_common, one, two).result())
