// Signs one transaction with a wallet API key and prints it, ready to send.
//
//     node dist/sign.js REQUEST_ID WALLET_ID evm|solana HEX
//
// HEX is the unsigned EVM transaction, or the Solana message. REQUEST_ID is the
// caller's own: to ask again after a lost answer, keep it. SIGILD_SOCKET names the
// socket, SIGILD_API_KEY_FILE the file with the key.

import { readFileSync } from "node:fs";
import { SigningService } from "./gen/sigil/v1/signing_pb.js";
import { Client, refusal } from "./sigild.js";

const [requestId, walletId, chain, hex] = process.argv.slice(2);
if (!/^(0x)?([0-9a-f]{2})+$/i.test(hex ?? "") || (chain !== "evm" && chain !== "solana")) {
  console.error("usage: sign.js REQUEST_ID WALLET_ID evm|solana HEX");
  process.exit(2);
}
const apiKey = readFileSync(process.env.SIGILD_API_KEY_FILE!, "utf8").trim();
const client = new Client(process.env.SIGILD_SOCKET ?? "/run/sigild/sigild.sock", { apiKey });
try {
  const answer = await client.call(SigningService.method.sign, {
    requestId, walletId,
    payload: { case: chain === "evm" ? "evmTransaction" : "solanaMessage", value: Buffer.from(hex!.replace(/^0x/, ""), "hex") },
  });
  console.error(answer.summary);
  console.log(Buffer.from(answer.signedTransaction).toString("hex"));
} catch (error) {
  const { reason, facts } = refusal(error);
  console.error("refused:", reason || "(no reason)", (error as Error).message, facts);
  process.exitCode = 1;
} finally {
  client.close();
}
