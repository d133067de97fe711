"""What runs in executors on behalf of files and tasks; it imports nothing of the side that submits."""
