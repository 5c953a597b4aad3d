"""A Ray cluster of two nodes on this machine, for as long as standard input is open.

Prints the address and the process id of the second node's raylet; ends that node, and all that
runs on it, when a line comes in.
"""

import sys

from ray.cluster_utils import Cluster

SIZE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def tell(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={**SIZE, "include_dashboard": False})
    second = cluster.add_node(**SIZE)
    cluster.wait_for_nodes()
    (raylet,) = second.all_processes["raylet"]
    tell(f"{cluster.address} {raylet.process.pid}")
    for _ in sys.stdin:
        cluster.remove_node(second, allow_graceful=False)
        tell("removed")
    cluster.shutdown()
