SELECT id AS text_id
     , text
     , updated_at
     , deleted_at
  FROM texts
