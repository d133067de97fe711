"""What the manager and its workers say to each other: messages, codec, values, keys, errors. A leaf."""
