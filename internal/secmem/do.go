//go:build !goexperiment.runtimesecret

package secmem

// Do runs f. Built with GOEXPERIMENT=runtimesecret it runs it under
// runtime/secret, which wipes f's stack and registers when f returns, and what f
// allocated once it is garbage. Without, this is a plain call: cleared slices are
// clear, copies that the compiler made may stay for a while. Neither reaches
// goroutines that f starts.
func Do(f func()) { f() }
