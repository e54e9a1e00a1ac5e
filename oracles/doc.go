// Package oracles has no code of its own: its tests let other people's
// libraries judge sigild. ethers, viem, @solana/kit and @solana/web3.js (in
// JavaScript, versions pinned by package-lock.json) check the transactions and
// messages that sigild signed, and sigild decodes the unsigned ones and the calldata that they made. @noble/curves
// is the other party of FROST signatures, and checks ours.
//
// stamps.mjs has Turnkey's and Dfns' own libraries judge stamps for their APIs.
//
// evm.mjs, signables.mjs, solana.mjs, frost.mjs and stamps.mjs read one JSON object a line from stdin and
// answer one a line; they exit with 1 when anything is not as said. Node 20.19 or newer and
// npm are needed; the tests install the libraries when they are missing.
package oracles
