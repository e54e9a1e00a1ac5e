// @noble/curves as an oracle for FROST(Ed25519, SHA-512), RFC 9591. Scalars, points
// and identifiers are hex of their 32 bytes. A line is one of
//   {"id", "set", "sign": {identifier, share, theirs: [commitment], message}}
//       is a signer: answers {hiding, binding, share} of its own
//   {"id", "set", "check": {commitments, shares: {identifier: share}, message, signature}}
//       verifies every share, aggregates them and compares the signature
// where set is {key, threshold, publics: {identifier: point}} and a commitment is
// {identifier, hiding, binding}.
import { ed25519, ed25519_FROST as FROST } from '@noble/curves/ed25519.js';
import { answer, same } from './lines.mjs';

const bytes = (hex) => new Uint8Array(Buffer.from(hex, 'hex'));
const hex = (b) => Buffer.from(b).toString('hex');
const each = (o, f) => Object.fromEntries(Object.entries(o).map(([k, v]) => [k, f(v)]));
const commitment = (c) => ({ identifier: c.identifier, hiding: bytes(c.hiding), binding: bytes(c.binding) });

const publicOf = ({ key, threshold, publics }) => ({
  signers: { min: threshold, max: Object.keys(publics).length },
  commitments: [bytes(key)],
  verifyingShares: each(publics, bytes),
});

await answer(({ set, sign, check }) => {
  const pub = publicOf(set);
  if (sign) {
    const secret = { identifier: sign.identifier, signingShare: bytes(sign.share) };
    const { nonces, commitments } = FROST.commit(secret);
    const all = [...sign.theirs.map(commitment), commitments];
    const share = FROST.signShare(secret, pub, nonces, all, bytes(sign.message));
    return { hiding: hex(commitments.hiding), binding: hex(commitments.binding), share: hex(share) };
  }
  const all = check.commitments.map(commitment), msg = bytes(check.message);
  for (const [identifier, share] of Object.entries(check.shares)) {
    if (!FROST.verifyShare(pub, all, msg, identifier, bytes(share))) throw new Error(`share of ${identifier} does not verify`);
  }
  same('signature', hex(FROST.aggregate(pub, all, msg, each(check.shares, bytes))), check.signature);
  if (!ed25519.verify(bytes(check.signature), msg, bytes(set.key))) throw new Error('not an Ed25519 signature');
  return {};
});
