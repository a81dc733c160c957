SELECT id
     , label
  FROM known
