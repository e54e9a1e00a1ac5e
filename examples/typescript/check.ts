// What examples_test.go runs beside the examples: stamps where no appliance judges them, and one over other bytes.
//
//     node dist/check.js vectors <credential/testdata/stamps.jsonl
//     node dist/check.js other-bytes KEY_FILE ORGANIZATION_ID WALLET_ID

import { createECDH, createPrivateKey, createPublicKey, verify, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { create, toBinary } from "@bufbuild/protobuf";
import { GetWalletRequestSchema, WalletService } from "./gen/sigil/v1/organization_pb.js";
import { Client, methodPath, refusal, stamp, statement } from "./sigild.js";

function privateKey(algorithm: string, raw: Buffer): KeyObject {
  if (algorithm === "ed25519") {
    const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), raw]); // RFC 8410
    return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  }
  const ecdh = createECDH(algorithm === "p256" ? "prime256v1" : "secp256k1");
  ecdh.setPrivateKey(raw);
  const point = ecdh.getPublicKey();
  const [d, x, y] = [raw, point.subarray(1, 33), point.subarray(33)].map((n) => n.toString("base64url"));
  return createPrivateKey({ key: { kty: "EC", crv: algorithm === "p256" ? "P-256" : "secp256k1", d, x, y }, format: "jwk" });
}

function vectors(): void {
  for (const line of readFileSync(0, "utf8").trim().split("\n")) {
    const v = JSON.parse(line);
    const key = privateKey(v.algorithm, Buffer.from(v.private_key, "hex"));
    const message = Buffer.from(v.message, "hex");
    const text = statement(v.appliance_id, v.organization_id, v.method, v.issued_at, message);
    const out: Record<string, unknown> = { name: v.name, statement: text.toString("hex") };
    try {
      out.stamp = stamp(key, v.appliance_id, v.organization_id, v.method, message, v.issued_at).toString();
    } catch (error) {
      out.refused = (error as Error).message;
    }
    if (v.verdict !== "malformed") {
      const signature = Buffer.from(JSON.parse(v.stamp).signature, "hex");
      const digest = v.algorithm === "ed25519" ? null : "sha256";
      out.verifies = verify(digest, text, { key: createPublicKey(key), dsaEncoding: "der" }, signature);
    }
    console.log(JSON.stringify(out));
  }
}

/** Takes a stamp off one request and puts it on another. */
async function otherBytes(keyFile: string, organization: string, walletId: string): Promise<void> {
  const client = new Client(process.env.SIGILD_SOCKET!, { organization, keys: [createPrivateKey(readFileSync(keyFile))] });
  const path = methodPath(WalletService.method.getWallet);
  const ask = (id: string) => toBinary(GetWalletRequestSchema, create(GetWalletRequestSchema, { organizationId: organization, walletId: id }));
  try {
    await client.send(path, ask(walletId), await client.credentials(path, ask(walletId + "x")));
    console.log("taken");
  } catch (error) {
    console.log(refusal(error).reason);
  } finally {
    client.close();
  }
}

const [what, ...rest] = process.argv.slice(2);
if (what === "vectors") vectors();
else await otherBytes(rest[0]!, rest[1]!, rest[2]!);
