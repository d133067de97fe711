import sys

import ndcctools.taskvine as vine

m = vine.Manager([21000, 41000])
print(f"Listening on port {m.port}")

book = m.declare_url(sys.argv[1], cache="workflow")

print("Submitting tasks...")
for keyword in ["needle", "house", "water"]:
    task = vine.Task(f"grep {keyword} warandpeace.txt | wc -l")
    task.add_input(book, "warandpeace.txt")
    task.set_cores(1)
    m.submit(task)

print("Waiting for tasks to complete...")
total = 0
while not m.empty():
    task = m.wait(5)
    if task:
        print(f"Task {task.id} completed with result {task.output.strip()}")
        total += int(task.output)

print(f"All tasks done: {total} lines.")
