SELECT book, number, text, label, updated_at, deleted_at FROM lines
