"""A member of a group as a process of its own, for test_rebalance.py.

    python group_worker.py CONFIG BOOTSTRAP_OF_THE_GROUP SESSION_OPTIONS_AS_JSON

Rebalances are the business of another broker than the data. While the file `slow` is beside the
configuration, each round of the loop takes 0.2 s more.
"""

import json
import sys
import time
from pathlib import Path

from streamlearn.config import load_config
from streamlearn.connectors.kafka.wire import Client, Connection, Membership
from streamlearn.group import GroupRun
from streamlearn.logs import to_stderr


class Apart(GroupRun):
    """Its group is elsewhere."""

    group_connection: Connection

    def joined(self, client: Client) -> Membership:
        return client.member(self.group_connection, self.kafka.group)


def main(path: str, bootstrap: str, options: str) -> None:
    to_stderr()
    run = Apart(load_config(path))
    run.group_connection = Connection(bootstrap, run.kafka.client, json.loads(options))
    slow = Path(path).with_name("slow")

    def wait() -> None:
        if slow.exists():
            time.sleep(0.2)

    run.told = wait
    found = run.run()
    sys.stdout.write(json.dumps({n: one["events"] for n, one in found.lineages.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
