-- What a recipe says, one row per recipe. Runs as it stands in any SQL editor; the runner adds the window.
WITH said AS (
  SELECT recipe_id
       , LISTAGG(CASE WHEN deleted_at IS NULL THEN text END, ' ') WITHIN GROUP (ORDER BY position) AS steps
       , MAX(updated_at) AS updated_at  -- of removed lines too: the recipe says less now
    FROM steps
   GROUP BY recipe_id
), needed AS (
  SELECT recipe_id
       , LISTAGG(name, ' ') WITHIN GROUP (ORDER BY position) AS ingredients
       , MAX(updated_at) AS updated_at
    FROM ingredients
   GROUP BY recipe_id
)
SELECT r.id AS recipe_id
     , r.title
     , NVL(n.ingredients, '') AS ingredients
     , NVL(s.steps, '') AS steps
     , GREATEST(r.updated_at, n.updated_at, s.updated_at) AS updated_at  -- an edited step changes the recipe
     , r.deleted_at
  FROM recipes r
  LEFT JOIN needed n ON n.recipe_id = r.id
  LEFT JOIN said s ON s.recipe_id = r.id
