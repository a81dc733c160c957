SELECT id AS note_id, text, updated_at, deleted_at FROM notes
