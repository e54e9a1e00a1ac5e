// ethers as an oracle. A line is one of
//   {"id", "make": {type, chainId, nonce, …}}      answers {unsigned, digest}
//   {"id", "signed": "0x…", "from": "0x…", …}      checks the signed transaction:
//       the sender that ethers recovers, the canonical encoding, and every other
//       member against the transaction's member of that name
import { Transaction } from 'ethers';
import { answer, same } from './lines.mjs';

const members = ['type', 'chainId', 'nonce', 'to', 'value', 'data', 'gasLimit', 'gasPrice', 'maxFeePerGas', 'maxPriorityFeePerGas', 'hash'];

await answer(({ make, signed, from, ...rest }) => {
  if (make) {
    const tx = Transaction.from(make);
    return { unsigned: tx.unsignedSerialized, digest: tx.unsignedHash };
  }
  const tx = Transaction.from(signed);
  if (!tx.isSigned()) throw new Error('not signed');
  same('encoding', tx.serialized, signed);
  same('sender', tx.from, from);
  for (const name of Object.keys(rest)) {
    if (name === 'id') continue;
    if (!members.includes(name)) throw new Error(`unknown member ${name}`);
    same(name, tx[name], rest[name]);
  }
  if (!tx.signature || BigInt(tx.signature.s) > 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n) throw new Error('s is high');
  return { hash: tx.hash };
});
