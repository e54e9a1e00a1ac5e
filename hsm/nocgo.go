//go:build !cgo

package hsm

import (
	"fmt"
	"os"
)

// built says whether this binary can load a PKCS#11 module.
const built = false

// WorkerMain is the main function of `sigild hsm-worker`. Built without cgo it
// says so and returns 2.
func WorkerMain() int {
	fmt.Fprintln(os.Stderr, "hsm-worker: built without cgo: no PKCS#11")
	return 2
}
