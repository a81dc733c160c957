SELECT thing, place, text, label, updated_at, deleted_at FROM things
