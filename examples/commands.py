"""Commands with files: each runs in a directory of its own with its inputs; its outputs come back."""

import random
from pathlib import Path

import graphvine as vine

if __name__ == "__main__":
    random.seed(1)
    Path("numbers.txt").write_text("".join(f"{random.randrange(1000)}\n" for _ in range(10_000)))

    with vine.Manager() as m:
        numbers = m.declare_file("numbers.txt", cache=True)
        for digit in range(10):
            task = vine.Task(f"grep {digit} in | sort -n > out; wc -l < out", cores=1, tag=str(digit))
            task.add_input(numbers, "in")
            task.add_output(m.declare_file(f"with-{digit}.txt"), "out")
            m.submit(task)
        while not m.empty():
            task = m.wait(5)
            if task and task.successful():
                print(f"{task.output.strip()} numbers with a {task.tag}")
            elif task:
                print(f"{task.tag}: {task.result}: {task.reason}")

    print(f"largest with a 7: {Path('with-7.txt').read_text().split()[-1]}")
