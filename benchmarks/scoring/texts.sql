SELECT id
     , text
     , updated_at
     , deleted_at
  FROM texts
