"""Are the crops used? A model's answers with and without them, beside published figures and on a page of pictures."""
