"""A small client of sigild: wallet API keys and stamps over the unix socket.

    with sigild.Client("/run/sigild/sigild.sock", api_key=key) as c:
        answer = c.call(sigild.SIGN, request, SignResponse)

A request is marshalled once; those bytes are stamped and those bytes are sent.
Nothing is retried: whoever does keeps the request id. It needs grpcio, protobuf,
cryptography, and what protoc makes of api/ (../README.md).
"""

import hashlib
import json
import time

import grpc
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

import refusal_pb2
from sigil.v1 import status_pb2

SIGN = "/sigil.v1.SigningService/Sign"
GET_STATUS = "/sigil.v1.StatusService/GetStatus"
GET_WALLET = "/sigil.v1.WalletService/GetWallet"


class Client:
    """A connection to one socket. It shows a wallet API key, or stamps, or nothing.

    keys are private keys (load_key), all of whom stamp each call for organization;
    organization is "" for operators. appliance is the id that stamps bind to; without
    it the appliance is asked.
    """

    def __init__(self, socket, api_key=None, organization="", keys=(), appliance=None):
        self.api_key, self.organization, self.keys, self.appliance = api_key, organization, keys, appliance
        self.channel = grpc.insecure_channel("unix:" + socket, options=[  # the kernel names both ends
            ("grpc.default_authority", "localhost"),  # older grpcio sends the path, which is no authority
            ("grpc.enable_retries", 0),
            ("grpc.max_reconnect_backoff_ms", 1000),
        ])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def call(self, method, request, reply, timeout=30):
        """Calls method, "/sigil.v1.WalletService/GetWallet", and returns a reply (a message type).

        What sigild refuses is a grpc.RpcError; refusal() reads it.
        """
        message = request.SerializeToString(deterministic=True)
        return reply.FromString(self.send(method, message, self.credentials(method, message), timeout))

    def credentials(self, method, message):
        """The metadata that method takes for exactly these bytes."""
        if method == SIGN:
            return [("sigild-api-key", self.api_key)] if self.api_key else []
        if method == GET_STATUS:
            return []
        return [("sigild-stamp-bin", stamp(key, self.appliance_id(), self.organization, method, message)) for key in self.keys]

    def send(self, method, message, metadata, timeout=30):
        """Sends bytes and returns bytes: no serializer comes between stamp and socket."""
        raw = self.channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        return raw(message, metadata=metadata, timeout=timeout)

    def appliance_id(self):
        if not self.appliance:
            status = self.call(GET_STATUS, status_pb2.GetStatusRequest(), status_pb2.GetStatusResponse)
            if not status.appliance_id:
                raise RuntimeError("the appliance is sealed: " + status.sealed_reason)
            self.appliance = status.appliance_id
        return self.appliance


def load_key(path):
    """Reads a private key as sigilctl credential create writes it: P-256 or Ed25519, PKCS#8 in PEM."""
    with open(path, "rb") as f:
        return load_pem_private_key(f.read(), password=None)


def stamp(key, appliance, organization, method, message, issued_at=None):
    """A stamp of key over message (bytes), as metadata sigild-stamp-bin carries it.

    issued_at is in milliseconds since 1970; None means now. sigild takes a stamp for 120 s.
    """
    issued_at = time.time_ns() // 1_000_000 if issued_at is None else issued_at
    text = statement(appliance, organization, method, issued_at, message)
    public = key.public_key()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        scheme, signature = "SIGILD_ED25519", key.sign(text)
        encoded = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        scheme, signature = "SIGILD_P256_SHA256", key.sign(text, ec.ECDSA(hashes.SHA256()))  # DER
        encoded = public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    else:
        raise ValueError("stamping takes P-256 and Ed25519 keys")
    return json.dumps({
        "publicKey": encoded.hex(),
        "scheme": scheme,
        "signature": signature.hex(),
        "issuedAt": issued_at,
        "organizationId": organization,
    }).encode()


def statement(appliance, organization, method, issued_at, message):
    """What is signed: each part after its length as u32 big-endian (docs/authority.md)."""
    parts = [b"sigild/stamp/v1", appliance.encode(), organization.encode(), method.encode(),
             issued_at.to_bytes(8, "big"), hashlib.sha256(message).digest()]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def refusal(error):
    """The reason and the facts of a grpc.RpcError: ("POLICY_DENIED", {"rule": ...}).

    ("", {}) for what is no refusal of sigild's, such as a socket nobody listens on.
    """
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            for detail in refusal_pb2.Status.FromString(value).details:
                if detail.type_url.endswith("/google.rpc.ErrorInfo"):
                    info = refusal_pb2.ErrorInfo.FromString(detail.value)
                    if info.domain == "sigild":
                        return info.reason, dict(info.metadata)
    return "", {}
