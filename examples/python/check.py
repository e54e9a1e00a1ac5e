"""What examples_test.go runs beside the examples: stamps where no appliance judges them, and one over other bytes.

    python3 check.py vectors <credential/testdata/stamps.jsonl
    python3 check.py other-bytes KEY_FILE ORGANIZATION_ID WALLET_ID
"""

import json
import os
import sys

import grpc
import sigild
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sigil.v1 import organization_pb2 as api


def private_key(algorithm, raw):
    if algorithm == "ed25519":
        return ed25519.Ed25519PrivateKey.from_private_bytes(raw)
    curve = {"p256": ec.SECP256R1(), "secp256k1": ec.SECP256K1()}[algorithm]
    return ec.derive_private_key(int.from_bytes(raw, "big"), curve)


def verifies(key, signature, text):
    more = [] if isinstance(key, ed25519.Ed25519PrivateKey) else [ec.ECDSA(hashes.SHA256())]
    try:
        key.public_key().verify(signature, text, *more)
    except InvalidSignature:
        return False
    return True


def vectors():
    for line in sys.stdin:
        v = json.loads(line)
        key = private_key(v["algorithm"], bytes.fromhex(v["private_key"]))
        act = v["appliance_id"], v["organization_id"], v["method"]
        message, issued_at = bytes.fromhex(v["message"]), v["issued_at"]
        text = sigild.statement(*act, issued_at, message)
        out = {"name": v["name"], "statement": text.hex()}
        try:
            out["stamp"] = sigild.stamp(key, *act, message, issued_at).decode()
        except ValueError as error:
            out["refused"] = str(error)
        if v["verdict"] != "malformed":
            out["verifies"] = verifies(key, bytes.fromhex(json.loads(v["stamp"])["signature"]), text)
        print(json.dumps(out))


def other_bytes(key_file, organization, wallet):
    """Takes a stamp off one request and puts it on another."""

    def ask(wallet):
        return api.GetWalletRequest(organization_id=organization, wallet_id=wallet).SerializeToString(deterministic=True)

    with sigild.Client(os.environ["SIGILD_SOCKET"], organization=organization, keys=[sigild.load_key(key_file)]) as client:
        try:
            client.send(sigild.GET_WALLET, ask(wallet), client.credentials(sigild.GET_WALLET, ask(wallet + "x")))
            print("taken")
        except grpc.RpcError as error:
            print(sigild.refusal(error)[0])


if sys.argv[1] == "vectors":
    vectors()
else:
    other_bytes(*sys.argv[2:])
