-- The kind of dish that people filed a recipe under, one row per labelled recipe.
SELECT recipe_id, category AS label FROM recipe_labels
