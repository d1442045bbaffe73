"""Small networks, trained and measured: who remembers how long, and whose gradient vanishes.

What can be said of a cell without training it, its equations, diagram and cost, is in `cellwise.understand`.
"""
