// @solana/kit and @solana/web3.js as readers of Solana messages. Bytes are base64.
// A line is one of
//   {"id", "read": message}
//       answers, for each library, {same: whether it writes these bytes again,
//       accounts, blockhash, instructions: [[program, accounts, data hex]], lookups},
//       or {refused: why}; web3.js can't write version 1, so "same" is absent there
//   {"id", "make": {version: 0|1, text, format?, domain?, signers: [address]}}
//       answers {message}, an off-chain message that kit makes
//   {"id", "make": {v1: {feePayer, to, lamports, blockhash, config}}}
//       answers {message}, a version 1 transaction message that kit makes
//   {"id", "content", "signature", "signer"}
//       checks one signature of an off-chain message, and reads it: {version, text, signers}
//   {"id", "signed", "signer"}
//       checks a version 1 transaction that one account signed
import * as kit from '@solana/kit';
import * as web3 from '@solana/web3.js';
import { answer, same } from './lines.mjs';

const bytesOf = (s) => new Uint8Array(Buffer.from(s, 'base64'));
const base64 = (b) => Buffer.from(b).toString('base64');
const hex = (b) => Buffer.from(b ?? []).toString('hex');

function attempt(read) {
  try {
    return read();
  } catch (e) {
    return { refused: String(e?.message ?? e) };
  }
}

function readWithKit(bytes) {
  const m = kit.getCompiledTransactionMessageDecoder().decode(bytes);
  const again = kit.getCompiledTransactionMessageEncoder().encode(m);
  const instructions = m.version === 1
    ? m.instructionHeaders.map((h, i) => [h.programAccountIndex, [...(m.instructionPayloads[i].instructionAccountIndices ?? [])], hex(m.instructionPayloads[i].instructionData)])
    : m.instructions.map((i) => [i.programAddressIndex, [...(i.accountIndices ?? [])], hex(i.data)]);
  return {
    same: base64(again) === base64(bytes), accounts: m.staticAccounts, blockhash: m.lifetimeToken, instructions,
    lookups: (m.addressTableLookups ?? []).map((l) => [l.lookupTableAddress, [...(l.writableIndexes ?? l.writableIndices)], [...(l.readonlyIndexes ?? l.readableIndices)]]),
  };
}

function readWithWeb3(bytes) {
  const m = web3.VersionedMessage.deserialize(bytes);
  const out = {
    accounts: m.staticAccountKeys.map((k) => k.toBase58()), blockhash: m.recentBlockhash,
    instructions: m.compiledInstructions.map((i) => [i.programIdIndex, [...i.accountKeyIndexes], hex(i.data)]),
    lookups: m.addressTableLookups.map((l) => [l.accountKey.toBase58(), [...l.writableIndexes], [...l.readonlyIndexes]]),
  };
  if (m.version !== 1) out.same = base64(m.serialize()) === base64(bytes);
  return out;
}

function makeOffchain({ version, text, format, domain, signers }) {
  const requiredSignatories = signers.map((s) => ({ address: kit.address(s) }));
  const message = version === 1
    ? { version, requiredSignatories, content: text }
    : { version, requiredSignatories, applicationDomain: kit.offchainMessageApplicationDomain(domain), content: { format, text } };
  return kit.compileOffchainMessageEnvelope(message).content;
}

function makeV1({ feePayer, to, lamports, blockhash, config }) {
  let message = kit.createTransactionMessage({ version: 1 });
  message = kit.setTransactionMessageFeePayer(kit.address(feePayer), message);
  message = kit.setTransactionMessageLifetimeUsingBlockhash({ blockhash: kit.blockhash(blockhash), lastValidBlockHeight: 0n }, message);
  const parts = { ...config };
  if (parts.priorityFeeLamports !== undefined) parts.priorityFeeLamports = BigInt(parts.priorityFeeLamports);
  message = kit.setTransactionMessageConfig(parts, message);
  const i = web3.SystemProgram.transfer({ fromPubkey: new web3.PublicKey(feePayer), toPubkey: new web3.PublicKey(to), lamports: BigInt(lamports) });
  message = kit.appendTransactionMessageInstruction({
    programAddress: kit.address(i.programId.toBase58()),
    accounts: i.keys.map((k) => ({ address: kit.address(k.pubkey.toBase58()), role: (k.isSigner ? 2 : 0) | (k.isWritable ? 1 : 0) })),
    data: new Uint8Array(i.data),
  }, message);
  return kit.compileTransaction(message).messageBytes;
}

async function verify(signer, signature, bytes) {
  const key = await kit.getPublicKeyFromAddress(kit.address(signer));
  if (!(await kit.verifySignature(key, signature, bytes))) throw new Error('the signature does not verify');
}

await answer(async ({ read, make, content, signature, signed, signer }) => {
  if (read !== undefined) {
    const bytes = bytesOf(read);
    return { kit: attempt(() => readWithKit(bytes)), web3: attempt(() => readWithWeb3(bytes)) };
  }
  if (make) return { message: base64(make.v1 ? makeV1(make.v1) : makeOffchain(make)) };
  if (content) {
    const bytes = bytesOf(content);
    await verify(signer, bytesOf(signature), bytes);
    const m = kit.getOffchainMessageDecoder().decode(bytes);
    return { version: m.version, text: m.version === 1 ? m.content : m.content.text, signers: m.requiredSignatories.map((s) => s.address) };
  }
  const bytes = bytesOf(signed);
  const tx = kit.getTransactionDecoder().decode(bytes);
  same('encoding (kit)', base64(kit.getTransactionEncoder().encode(tx)), signed);
  await verify(signer, tx.signatures[signer], tx.messageBytes);
  return { message: base64(tx.messageBytes) };
});
