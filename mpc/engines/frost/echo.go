package frost

import (
	"fmt"

	"github.com/sigild/sigild/mpc"
)

// checkEcho compares what others say was broadcast with our own view. With a single
// peer there is nobody else to have told two stories.
func checkEcho(members, others []mpc.Member, got map[mpc.Member][]byte, own []byte) error {
	for _, m := range others {
		if string(got[m][:len(own)]) == string(own) {
			continue
		}
		if len(members) == 2 {
			return mpc.Accuse(m, "another account of what both sent")
		}
		return fmt.Errorf("%w: %s was told something else than we were: one of the parties told two stories", mpc.ErrProtocol, m)
	}
	return nil
}
