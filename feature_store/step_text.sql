-- One line of a recipe's steps box, as posted. A deleted recipe takes its lines with it.
SELECT s.id AS step_id
     , s.recipe_id
     , s.text
     , GREATEST(s.updated_at, r.deleted_at) AS updated_at
     , NVL(s.deleted_at, r.deleted_at) AS deleted_at
  FROM steps s
  JOIN recipes r ON r.id = s.recipe_id
