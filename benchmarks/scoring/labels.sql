SELECT id AS text_id
     , label
  FROM known
