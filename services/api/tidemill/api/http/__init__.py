"""How HTTP is spoken: the route table's types, and what happens to every request before and after its handler."""
