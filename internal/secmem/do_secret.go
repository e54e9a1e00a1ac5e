//go:build goexperiment.runtimesecret

package secmem

import "runtime/secret"

// Do runs f under runtime/secret: its stack and registers are wiped when it
// returns, what it allocated once it is garbage. It does not reach goroutines
// that f starts.
func Do(f func()) { secret.Do(f) }
