"""What users of TaskVine see of a manager: files, tasks that are commands, `submit` and `wait`."""
