"""Create the environments of all peers."""

from __future__ import annotations

from benchmarks.goals import NotMeasurable
from benchmarks.peers import PEERS, PeerProcess, install


def main() -> None:
    for peer in PEERS.values():
        print(f"{peer.title}: ", end="", flush=True)
        reason = install(peer)
        if not reason:
            try:
                PeerProcess(peer).close()
            except NotMeasurable as error:
                reason = str(error)
        print(reason or "ready", flush=True)


if __name__ == "__main__":
    main()
