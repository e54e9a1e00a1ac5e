"""Shows a wallet: a call that carries a stamp.

    python3 wallet.py KEY_FILE ORGANIZATION_ID WALLET_ID

KEY_FILE holds the private key of a member of the organization, as `sigilctl
credential create` writes it. SIGILD_SOCKET names the socket.
"""

import os
import sys

import grpc
import sigild
from sigil.v1 import organization_pb2 as api


def main(key_file, organization, wallet):
    request = api.GetWalletRequest(organization_id=organization, wallet_id=wallet)
    socket = os.environ.get("SIGILD_SOCKET", "/run/sigild/sigild.sock")
    with sigild.Client(socket, organization=organization, keys=[sigild.load_key(key_file)]) as client:
        try:
            shown = client.call(sigild.GET_WALLET, request, api.GetWalletResponse).wallet
        except grpc.RpcError as error:
            reason, facts = sigild.refusal(error)
            sys.exit(f"refused: {reason or error.code().name} {error.details()} {facts}")
    print(shown.address, shown.scheme, "custody:", shown.custody)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
