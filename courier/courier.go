// Package courier is the two processes that have the network so that the daemon
// needs none: Receiver, a small HTTPS endpoint that hands webhook deliveries to the
// daemon's socket as they came, and Deliverer, which posts events that wait there.
// Both hold no secret: the receiver sees ciphertext and a MAC that it can't check,
// the deliverer ciphertext and a MAC over it.
//
// The receiver refuses what is too long, too slow, or for no webhook's path, and says
// the same of every delivery that the daemon doesn't take. The deliverer follows no
// redirect, no Retry-After and no proxy of its environment, believes nothing but the
// status of an answer, and posts to no link-local address.
package courier

import "time"

// SignatureHeader carries the MAC of a body.
const SignatureHeader = "X-Dynamic-Signature-256"

// callWithin is how long a call of the daemon may take.
const callWithin = 10 * time.Second
