"""How the small models were trained."""
