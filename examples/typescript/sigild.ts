// A small client of sigild: wallet API keys and stamps over the unix socket.
//
//     const client = new Client("/run/sigild/sigild.sock", { apiKey });
//     const answer = await client.call(SigningService.method.sign, { requestId, walletId, ... });
//
// A request is marshalled once; those bytes are stamped and those bytes are sent.
// Nothing is retried: whoever does keeps the request id. The message types in gen/
// are what protoc makes of api/ (../README.md).

import { createHash, createPublicKey, sign, type KeyObject } from "node:crypto";
import * as grpc from "@grpc/grpc-js";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { ErrorInfoSchema, StatusSchema } from "./gen/refusal_pb.js";
import { SigningService } from "./gen/sigil/v1/signing_pb.js";
import { StatusService } from "./gen/sigil/v1/status_pb.js";

/** What calls show of their caller. */
export interface Shown {
  /** The wallet API key, for Sign. */
  apiKey?: string;
  /** Private keys, P-256 or Ed25519, all of which stamp each other call. */
  keys?: KeyObject[];
  /** The organization they stamp for; absent for operators. */
  organization?: string;
  /** The appliance id that stamps bind to; without it the appliance is asked. */
  appliance?: string;
}

/** A connection to one socket. */
export class Client {
  private readonly channel: grpc.Client;

  constructor(socket: string, private readonly shown: Shown = {}) {
    this.channel = new grpc.Client("unix:" + socket, grpc.credentials.createInsecure(), { // the kernel names both ends
      "grpc.enable_retries": 0,
      "grpc.max_reconnect_backoff_ms": 1000,
    });
  }

  /** Calls a method, `WalletService.method.getWallet`. What sigild refuses rejects with an error that refusal() reads. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>, request: MessageInitShape<I>, timeoutMs = 30_000,
  ): Promise<MessageShape<O>> {
    const path = methodPath(method);
    const message = toBinary(method.input, create(method.input, request));
    const reply = await this.send(path, message, await this.credentials(path, message), timeoutMs);
    return fromBinary(method.output, reply);
  }

  /** The metadata that a method takes for exactly these bytes. */
  async credentials(path: string, message: Uint8Array): Promise<grpc.Metadata> {
    const metadata = new grpc.Metadata();
    if (path === methodPath(SigningService.method.sign)) {
      if (this.shown.apiKey) metadata.set("sigild-api-key", this.shown.apiKey);
    } else if (path !== methodPath(StatusService.method.getStatus)) {
      for (const key of this.shown.keys ?? []) {
        metadata.add("sigild-stamp-bin", stamp(key, await this.appliance(), this.shown.organization ?? "", path, message));
      }
    }
    return metadata;
  }

  /** Sends bytes and returns bytes: no serializer comes between stamp and socket. */
  send(path: string, message: Uint8Array, metadata: grpc.Metadata, timeoutMs = 30_000): Promise<Uint8Array> {
    const asIs = (bytes: Buffer) => bytes;
    return new Promise((resolve, reject) => {
      this.channel.makeUnaryRequest(path, asIs, asIs, Buffer.from(message), metadata, { deadline: Date.now() + timeoutMs },
        (error, reply) => (error ? reject(error) : resolve(reply!)));
    });
  }

  private async appliance(): Promise<string> {
    if (!this.shown.appliance) {
      const status = await this.call(StatusService.method.getStatus, {});
      if (!status.applianceId) throw new Error("the appliance is sealed: " + status.sealedReason);
      this.shown.appliance = status.applianceId;
    }
    return this.shown.appliance;
  }

  close(): void {
    this.channel.close();
  }
}

/** "/sigil.v1.WalletService/GetWallet" of `WalletService.method.getWallet`. */
export function methodPath(method: DescMethodUnary): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/**
 * A stamp of key over message, as metadata sigild-stamp-bin carries it. issuedAt is
 * in milliseconds since 1970; sigild takes a stamp for 120 s.
 */
export function stamp(
  key: KeyObject, appliance: string, organization: string, path: string, message: Uint8Array, issuedAt = Date.now(),
): Buffer {
  const text = statement(appliance, organization, path, issuedAt, message);
  const { crv, x, y } = createPublicKey(key).export({ format: "jwk" });
  let scheme: string, publicKey: Buffer, signature: Buffer;
  if (crv === "Ed25519") {
    scheme = "SIGILD_ED25519";
    publicKey = Buffer.from(x!, "base64url");
    signature = sign(null, text, key);
  } else if (crv === "P-256") {
    const odd = Buffer.from(y!, "base64url").at(-1)! & 1;
    scheme = "SIGILD_P256_SHA256";
    publicKey = Buffer.concat([Buffer.of(2 + odd), Buffer.from(x!, "base64url")]); // SEC1, compressed
    signature = sign("sha256", text, { key, dsaEncoding: "der" });
  } else {
    throw new Error("stamping takes P-256 and Ed25519 keys");
  }
  return Buffer.from(JSON.stringify({
    publicKey: publicKey.toString("hex"),
    scheme,
    signature: signature.toString("hex"),
    issuedAt,
    organizationId: organization,
  }));
}

/** What is signed: each part after its length as u32 big-endian (docs/authority.md). */
export function statement(appliance: string, organization: string, path: string, issuedAt: number, message: Uint8Array): Buffer {
  const time = Buffer.alloc(8);
  time.writeBigUInt64BE(BigInt(issuedAt));
  const texts = ["sigild/stamp/v1", appliance, organization, path].map((text) => Buffer.from(text));
  return Buffer.concat([...texts, time, createHash("sha256").update(message).digest()].flatMap((part) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(part.length);
    return [length, part];
  }));
}

/** The reason of an error and its facts; reason "" for what is no refusal of sigild's, such as a socket nobody listens on. */
export function refusal(error: unknown): { reason: string; facts: Record<string, string> } {
  const metadata = (error as Partial<grpc.ServiceError>).metadata;
  for (const value of metadata?.get("grpc-status-details-bin") ?? []) {
    for (const detail of fromBinary(StatusSchema, value as Buffer).details) {
      if (!detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) continue;
      const info = fromBinary(ErrorInfoSchema, detail.value);
      if (info.domain === "sigild") return { reason: info.reason, facts: info.metadata };
    }
  }
  return { reason: "", facts: {} };
}
