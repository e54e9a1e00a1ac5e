// Uniform resources, QR codes and wallets' requests by the libraries that wallets
// use: what they make is read here, and what is made here they read.
import { createRequire } from 'node:module';
import { answer } from './lines.mjs';

const require = createRequire(import.meta.url);
const { URDecoder, UR, UREncoder } = require('@ngraveio/bc-ur');
const { EthSignRequest, ETHSignature } = require('@keystonehq/bc-ur-registry-eth');
const { SolSignRequest, SolSignature } = require('@keystonehq/bc-ur-registry-sol');
const { PNG } = require('pngjs');
const QRCode = require('qrcode');
const jsQR = require('jsqr');

const hex = (b) => Buffer.from(b).toString('hex');
const bytes = (s) => Buffer.from(s, 'hex');

const verbs = {
  // Puts parts together; how many it needed.
  collect({ parts }) {
    const d = new URDecoder();
    let used = 0;
    for (const p of parts) {
      d.receivePart(p);
      used++;
      if (d.isComplete()) break;
    }
    if (!d.isSuccess()) throw new Error(`not complete after ${used} parts: ${d.resultError()}`);
    const ur = d.resultUR();
    return { type: ur.type, cbor: hex(ur.cbor), used };
  },
  // Cuts a message into parts.
  split({ type, cbor, fragment, count }) {
    const e = new UREncoder(new UR(bytes(cbor), type), fragment);
    return { parts: Array.from({ length: count }, () => e.nextPart()) };
  },
  async draw({ text }) {
    return { png: (await QRCode.toBuffer(text.toUpperCase(), { type: 'png', scale: 4 })).toString('hex') };
  },
  see({ png }) {
    const p = PNG.sync.read(bytes(png));
    const found = jsQR(new Uint8ClampedArray(p.data), p.width, p.height);
    if (!found) throw new Error('no code in the picture');
    return { text: found.data };
  },
  ethRequest({ data, dataType, chainId, address, uuid, origin }) {
    return { ur: EthSignRequest.constructETHRequest(bytes(data), dataType, "m/44'/60'/0'/0/0", '12345678', uuid, chainId, address, origin).toUREncoder(4000).nextPart() };
  },
  ethSignature({ cbor }) {
    const s = ETHSignature.fromCBOR(bytes(cbor));
    return { id: hex(s.getRequestId()), signature: hex(s.getSignature()), origin: s.getOrigin() };
  },
  solRequest({ data, signType, address, uuid, origin }) {
    return { ur: SolSignRequest.constructSOLRequest(bytes(data), "m/44'/501'/0'/0'", '12345678', signType, uuid, address, origin).toUREncoder(4000).nextPart() };
  },
  solSignature({ cbor }) {
    const s = SolSignature.fromCBOR(bytes(cbor));
    return { id: hex(s.getRequestId()), signature: hex(s.getSignature()) };
  },
};

await answer((row) => verbs[row.verb](row));
