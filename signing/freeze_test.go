package signing_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// breaker is an engine whose delegate breaks every signature.
type breaker struct{ mpc.Engine }

const breakerID = "test-breaker"

var registerBreaker = sync.OnceFunc(func() { mpc.Register(breakerID, breaker{}) })

func (breaker) Sign(ctx context.Context, s mpc.Session, p mpc.SignParams) ([]byte, error) {
	delegate := mpc.Member{SetID: p.Committee.SetID, Party: mpc.Delegate}
	return nil, &mpc.Blame{Culprits: []mpc.Member{delegate}, Err: fmt.Errorf("%w: a test breaks it", mpc.ErrProtocol)}
}

// Three broken signatures freeze the key, however many run at once; the journal
// names who broke them.
func TestBrokenSignaturesFreezeTheKey(t *testing.T) {
	registerBreaker()
	h, g := newHouse(t, terms{set: mpctest.Ed25519DelegateSet(t).WithEngine(t, breakerID)})
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			_, err := h.sign(g[0], fmt.Sprint("broken", i), g[0].pay(1, byte(i)))
			wantRefusal(t, err, "CEREMONY_FAILED")
		})
	}
	wg.Wait()
	_, err := h.sign(g[0], "frozen", g[0].pay(1, 9))
	wantRefusal(t, err, "PAUSED")
	for _, e := range h.entries(journal.KindFailed) {
		if e.Facts["culprits"] != "[delegate]" {
			t.Errorf("entry %d has facts %v, want the delegate as culprit", e.Seq, e.Facts)
		}
		if !e.Refunded() {
			t.Errorf("entry %d gives no charge back, and no last share was sent", e.Seq)
		}
	}
	if s := h.spent(g[0], sol); s != 0 {
		t.Errorf("%d are spent after signatures of which no last share was sent, want 0", s)
	}
}
