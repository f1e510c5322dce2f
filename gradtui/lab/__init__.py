"""The built-in trainings: recipes, nets, and the loop that trains and records them."""
