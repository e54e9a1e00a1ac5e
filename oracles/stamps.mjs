// Turnkey's and Dfns' own libraries, WebCrypto and @noble/curves as oracles for stamps.
// A line is one of stamping/testdata/stamps.jsonl:
//   {"id", "private", "public", "body", "value"}       value is an X-Stamp header's
//   {"id", "private", "public", "challenge", "account", "value"}  value is a firstFactor
// Their library makes a stamp of its own with the same key. Ours must have its form to
// the letter, but for the signature, and that must verify twice.
import { webcrypto, createPrivateKey } from 'node:crypto';
import { ApiKeyStamper } from '@turnkey/api-key-stamper';
import keysigner from '@dfns/sdk-keysigner';
import { p256 } from '@noble/curves/nist.js';
import { answer, same } from './lines.mjs';

const bytes = (hex) => new Uint8Array(Buffer.from(hex, 'hex'));
const b64 = (text) => new Uint8Array(Buffer.from(text, 'base64url'));

// jwk of a key; without d of its public half.
function jwk(publicKey, d) {
  const point = p256.Point.fromHex(publicKey).toBytes(false);
  const part = (from) => Buffer.from(point.slice(from, from + 32)).toString('base64url');
  return { kty: 'EC', crv: 'P-256', x: part(1), y: part(33), ...(d ? { d: Buffer.from(bytes(d)).toString('base64url') } : {}) };
}

async function verify(publicKey, message, der) {
  const sig = p256.Signature.fromBytes(der, 'der');
  if (sig.hasHighS()) throw new Error('s is in the upper half');
  if (!p256.verify(der, message, bytes(publicKey), { format: 'der' })) throw new Error('noble does not verify it');
  const key = await webcrypto.subtle.importKey('jwk', jwk(publicKey), { name: 'ECDSA', namedCurve: 'P-256' }, false, ['verify']);
  if (!(await webcrypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, key, sig.toBytes('compact'), message))) throw new Error('WebCrypto does not verify it');
}

await answer(async (row) => {
  if (row.body) {
    const theirs = await new ApiKeyStamper({ apiPublicKey: row.public, apiPrivateKey: row.private }).stamp(row.body);
    same('header', theirs.stampHeaderName, 'X-Stamp');
    const a = Buffer.from(row.value, 'base64url').toString(), b = Buffer.from(theirs.stampHeaderValue, 'base64url').toString();
    const ours = JSON.parse(a);
    same('form', a.replace(ours.signature, ''), b.replace(JSON.parse(b).signature, ''));
    same('encoding', Buffer.from(a).toString('base64url'), row.value);
    await verify(row.public, Buffer.from(row.body), bytes(ours.signature));
    return {};
  }
  const privateKey = createPrivateKey({ key: jwk(row.public, row.private), format: 'jwk' });
  const signer = new keysigner.AsymmetricKeySigner({ credId: row.account, privateKey, algorithm: 'sha256' });
  const theirs = await signer.sign({ challenge: row.challenge, allowCredentials: { key: [{ id: row.account, type: 'public-key' }], webauthn: [] } });
  const ours = JSON.parse(row.value);
  const blank = (f) => JSON.stringify({ ...f, credentialAssertion: { ...f.credentialAssertion, signature: '' } });
  same('form', blank(ours), blank(theirs));
  await verify(row.public, b64(ours.credentialAssertion.clientData), b64(ours.credentialAssertion.signature));
  return {};
});
