"""The sample kitchen: recipes that we wrote ourselves, and the demonstration that runs on them."""
