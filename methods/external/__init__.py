"""Any program as a method."""
