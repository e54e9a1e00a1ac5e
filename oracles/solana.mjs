// @solana/kit and @solana/web3.js as oracles. Bytes are base64. A line is one of
//   {"id", "make": {by: "kit"|"web3", version: "legacy"|0, feePayer, blockhash,
//                   transfers: [{from, to, lamports}], unitLimit?, unitPrice?, memo?, nonce?}}
//       answers {message}
//   {"id", "signed", "signers": [address], "feePayer", "blockhash", "transfers", "txid"}
//       checks the signed transaction with both libraries: the Ed25519 signatures
//       of signers and of nobody else, the canonical encoding, the fee payer, the
//       blockhash, the System transfers, and the id (empty: not signed by the payer)
import * as kit from '@solana/kit';
import * as web3 from '@solana/web3.js';
import { answer, same } from './lines.mjs';

const MEMO = 'MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr';

// instructions are web3.js's; kit's transactions are made from the same parts.
function instructions({ feePayer, transfers, unitLimit, unitPrice, memo, nonce }) {
  const key = (s) => new web3.PublicKey(s);
  const out = [];
  if (nonce) out.push(web3.SystemProgram.nonceAdvance({ noncePubkey: key(nonce), authorizedPubkey: key(feePayer) }));
  if (unitLimit) out.push(web3.ComputeBudgetProgram.setComputeUnitLimit({ units: unitLimit }));
  if (unitPrice) out.push(web3.ComputeBudgetProgram.setComputeUnitPrice({ microLamports: BigInt(unitPrice) }));
  for (const t of transfers) {
    out.push(web3.SystemProgram.transfer({ fromPubkey: key(t.from), toPubkey: key(t.to), lamports: BigInt(t.lamports) }));
  }
  if (memo) out.push(new web3.TransactionInstruction({ programId: key(MEMO), keys: [], data: Buffer.from(memo) }));
  return out;
}

function makeWithWeb3(spec) {
  const message = new web3.TransactionMessage({
    payerKey: new web3.PublicKey(spec.feePayer), recentBlockhash: spec.blockhash, instructions: instructions(spec),
  });
  return spec.version === 0 ? message.compileToV0Message().serialize() : message.compileToLegacyMessage().serialize();
}

function makeWithKit(spec) {
  let message = kit.createTransactionMessage({ version: spec.version });
  message = kit.setTransactionMessageFeePayer(kit.address(spec.feePayer), message);
  message = kit.setTransactionMessageLifetimeUsingBlockhash({ blockhash: kit.blockhash(spec.blockhash), lastValidBlockHeight: 0n }, message);
  for (const i of instructions(spec)) {
    message = kit.appendTransactionMessageInstruction({
      programAddress: kit.address(i.programId.toBase58()),
      accounts: i.keys.map((k) => ({
        address: kit.address(k.pubkey.toBase58()),
        role: (k.isSigner ? 2 : 0) | (k.isWritable ? 1 : 0),
      })),
      data: new Uint8Array(i.data),
    }, message);
  }
  return kit.compileTransaction(message).messageBytes;
}

async function checkWithKit(bytes, { signers, feePayer, blockhash, txid }) {
  const tx = kit.getTransactionDecoder().decode(bytes);
  same('encoding (kit)', Buffer.from(kit.getTransactionEncoder().encode(tx)).toString('base64'), Buffer.from(bytes).toString('base64'));
  for (const [who, signature] of Object.entries(tx.signatures)) {
    const signed = signature !== null && signature.some((b) => b !== 0);
    same(`${who} signed`, signed, signers.includes(who));
    if (signed && !(await kit.verifySignature(await kit.getPublicKeyFromAddress(kit.address(who)), signature, tx.messageBytes))) {
      throw new Error(`signature of ${who} does not verify`);
    }
  }
  for (const who of signers) if (!(who in tx.signatures)) throw new Error(`${who} is no signer`);
  const message = kit.getCompiledTransactionMessageDecoder().decode(tx.messageBytes);
  same('fee payer (kit)', message.staticAccounts[0], feePayer);
  same('blockhash (kit)', message.lifetimeToken, blockhash);
  if (txid) same('id', kit.getSignatureFromTransaction(tx), txid);
}

function checkWithWeb3(bytes, { feePayer, blockhash, transfers }) {
  const tx = web3.VersionedTransaction.deserialize(bytes);
  same('encoding (web3.js)', Buffer.from(tx.serialize()).toString('base64'), Buffer.from(bytes).toString('base64'));
  const message = web3.TransactionMessage.decompile(tx.message);
  same('fee payer (web3.js)', message.payerKey.toBase58(), feePayer);
  same('blockhash (web3.js)', message.recentBlockhash, blockhash);
  const moved = message.instructions
    .filter((i) => i.programId.equals(web3.SystemProgram.programId) && web3.SystemInstruction.decodeInstructionType(i) === 'Transfer')
    .map((i) => web3.SystemInstruction.decodeTransfer(i))
    .map((t) => `${t.fromPubkey.toBase58()} ${t.toPubkey.toBase58()} ${t.lamports}`);
  same('transfers', moved.join(), transfers.map((t) => `${t.from} ${t.to} ${t.lamports}`).join());
}

await answer(async ({ make, signed, ...row }) => {
  if (make) {
    const bytes = make.by === 'kit' ? makeWithKit(make) : makeWithWeb3(make);
    return { message: Buffer.from(bytes).toString('base64') };
  }
  const bytes = new Uint8Array(Buffer.from(signed, 'base64'));
  await checkWithKit(bytes, row);
  checkWithWeb3(bytes, row);
  return {};
});
