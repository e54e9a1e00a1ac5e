// Shows a wallet: a call that carries a stamp.
//
//     node dist/wallet.js KEY_FILE ORGANIZATION_ID WALLET_ID
//
// KEY_FILE holds the private key of a member of the organization, as `sigilctl
// credential create` writes it. SIGILD_SOCKET names the socket.

import { createPrivateKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { WalletService } from "./gen/sigil/v1/organization_pb.js";
import { Client, refusal } from "./sigild.js";

const [keyFile, organization, walletId] = process.argv.slice(2);
if (!keyFile || !organization || !walletId) {
  console.error("usage: wallet.js KEY_FILE ORGANIZATION_ID WALLET_ID");
  process.exit(2);
}
const keys = [createPrivateKey(readFileSync(keyFile))];
const client = new Client(process.env.SIGILD_SOCKET ?? "/run/sigild/sigild.sock", { organization, keys });
try {
  const { wallet } = await client.call(WalletService.method.getWallet, { organizationId: organization, walletId });
  console.log(wallet?.address, wallet?.scheme, "custody:", wallet?.custody);
} catch (error) {
  const { reason, facts } = refusal(error);
  console.error("refused:", reason || "(no reason)", (error as Error).message, facts);
  process.exitCode = 1;
} finally {
  client.close();
}
