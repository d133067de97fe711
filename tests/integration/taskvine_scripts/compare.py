"""Pairs of texts compared by a program that comes in a package, and a report at the end."""

import itertools
import os
import sys

import ndcctools.taskvine as vine

urls, package, results = sys.argv[1].split(","), sys.argv[2], sys.argv[3]

m = vine.Manager(port=0, name=f"compare-{os.getpid()}")
m.enable_monitoring()
m.tune("hungry-minimum", 20)
m.set_category_resources_max("comparison", {"cores": 1})

software = m.declare_untar(m.declare_file(package, cache="workflow"), cache="workflow")
texts = [m.declare_url(url, cache="workflow") for url in urls]
summary = m.declare_buffer()
parts = []

for number, (a, b) in enumerate(itertools.combinations(texts, 2)):
    task = vine.Task("./software/bin/similar a.txt b.txt > answer; echo $WHO", category="comparison")
    task.add_input(software, "software")
    task.add_input(a, "a.txt")
    task.add_input(b, "b.txt")
    part = m.declare_temp()
    parts.append(part)
    task.add_output(part, "answer")
    task.add_output(m.declare_file(os.path.join(results, f"{number}.txt")), "answer")
    task.set_env_var("WHO", "me")
    task.set_retries(2)
    task.set_tag(str(number))
    m.submit(task)

final = vine.Task("sort -n part.* > all", cores=1)
for number, part in enumerate(parts):
    final.add_input(part, f"part.{number}")
final.add_output(summary, "all")
m.submit(final)

while not m.empty():
    t = m.wait(5)
    if t:
        if not t.successful():
            print(f"task {t.id} failed: {t.result} {t.exit_code} {t.std_output}")
            sys.exit(1)
        used = t.resources_measured
        print(f"task {t.id} ({t.tag}) on {t.hostname} used {used.memory} MB and {used.wall_time} us")

print("answers:", ",".join(summary.contents().decode().split()))
