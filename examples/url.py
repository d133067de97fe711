"""A file from a URL: fetched by a worker once, used by many tasks. python url.py [URL]

http, https, ftp and file go by themselves; root:// with graphvine[xrootd], s3:// with graphvine[s3].
"""

import sys
from pathlib import Path

import graphvine as vine

if __name__ == "__main__":
    # Without another one: this very script.
    url = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().as_uri()
    with vine.Manager() as m:
        page = m.declare_url(url, cache=True)
        for letter in "aeiou":
            task = vine.Task(f"tr -cd {letter} < page | wc -c", cores=1, tag=letter)
            task.add_input(page, "page")
            m.submit(task)
        while not m.empty():
            task = m.wait(5)
            if task and task.successful():
                print(f"{task.tag}: {task.output.strip()} times")
            elif task:
                print(f"{task.tag}: {task.result}: {task.reason}")
