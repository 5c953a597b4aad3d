"""Tables: runs as rows and columns, with the statistics that a reader needs to trust them.

arrange   the runs found, as methods x tasks
layout    a paper's rows and columns, as data; fill puts runs into it
contrasts, published, costs, notes   what stands beside the cells and below
sheets    all of it as texts; text, markdown, latex and html write these down, data the numbers
"""
