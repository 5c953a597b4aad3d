"""What stands in the way of a run: installation, weights, data, needs, room, known answers."""
