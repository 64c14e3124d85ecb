"""DM: pixels optimised so that random networks' features match the real images'."""
