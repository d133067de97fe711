"""Commands that build on each other: what is only passed on stays on the workers, as temps."""

import graphvine as vine

if __name__ == "__main__":
    with vine.Manager() as m:
        parts = []
        for number in range(8):
            make = vine.Task(f"seq {number} 8 80000 > out", cores=1)
            parts.append(m.declare_temp())
            make.add_output(parts[-1], "out")
            m.submit(make)

        # It starts when all its inputs are there.
        merge = vine.Task("sort -n -m part-* | tail -n 1", cores=1, tag="merge")
        for number, part in enumerate(parts):
            merge.add_input(part, f"part-{number}")
        m.submit(merge)

        while not m.empty():
            task = m.wait(5)
            if task and not task.successful():
                print(f"task {task.id}: {task.result}: {task.reason}")
            elif task and task.tag == "merge":
                print(f"the largest number is {task.output.strip()}")
