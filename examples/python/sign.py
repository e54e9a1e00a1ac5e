"""Signs one transaction with a wallet API key and prints it, ready to send.

    python3 sign.py REQUEST_ID WALLET_ID evm|solana HEX

HEX is the unsigned EVM transaction, or the Solana message. REQUEST_ID is the
caller's own: to ask again after a lost answer, keep it. SIGILD_SOCKET names the
socket, SIGILD_API_KEY_FILE the file with the key.
"""

import os
import sys

import grpc
import sigild
from sigil.v1 import signing_pb2


def main(request_id, wallet_id, chain, payload):
    request = signing_pb2.SignRequest(request_id=request_id, wallet_id=wallet_id)
    field = {"evm": "evm_transaction", "solana": "solana_message"}[chain]
    setattr(request, field, bytes.fromhex(payload.removeprefix("0x")))
    with open(os.environ["SIGILD_API_KEY_FILE"]) as f:
        api_key = f.read().strip()
    with sigild.Client(os.environ.get("SIGILD_SOCKET", "/run/sigild/sigild.sock"), api_key=api_key) as client:
        try:
            answer = client.call(sigild.SIGN, request, signing_pb2.SignResponse)
        except grpc.RpcError as error:
            reason, facts = sigild.refusal(error)
            sys.exit(f"refused: {reason or error.code().name} {error.details()} {facts}")
    print(answer.summary, file=sys.stderr)
    print(answer.signed_transaction.hex())


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
