SELECT note_id, label FROM moods
