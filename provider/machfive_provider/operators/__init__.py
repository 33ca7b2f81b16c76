"""Operators: buy emails for leads, and export them."""
