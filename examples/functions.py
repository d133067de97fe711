"""Functions as tasks: single ones, and those of a library, whose set-up runs once per worker."""

import graphvine as vine


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def load_table(limit):
    return {"squares": {n * n for n in range(limit)}}


def is_square(n):
    return n in vine.load_variable_from_library("squares")


if __name__ == "__main__":
    with vine.Manager() as m:
        task = vine.PythonTask(divisors, 360)
        task.set_cores(1)
        m.submit(task)

        library = m.create_library_from_functions(
            "table", is_square, library_context_info=[load_table, [1000], {}]
        )
        m.install_library(library)
        for n in range(100):
            call = vine.FunctionCall("table", "is_square", n)
            call.set_tag(str(n))
            m.submit(call)

        squares = []
        while not m.empty():
            task = m.wait(5)
            if task and not task.successful():
                print(f"task {task.id}: {task.output}")
            elif task and isinstance(task, vine.FunctionCall):
                squares += [int(task.tag)] if task.output else []
            elif task:
                print(f"360 has {len(task.output)} divisors")
        print(f"squares: {sorted(squares)}")
