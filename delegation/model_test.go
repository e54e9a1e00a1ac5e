package delegation

import (
	"errors"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/sigild/sigild/delegation/model"
	"github.com/sigild/sigild/refusal"
)

var modelSeed = flag.Uint64("seed", 0, "repeat this one life of TestCampaignLivesAgreeWithTheModel")

// movesOfALife are enough for a delegation to be made, used, stopped and made again.
const movesOfALife = 40

// Random lives of delegations, ours and a vendor's, with kills, restarts and clocks that
// are turned: each answer and all that is there in the end are what package model says.
// A sample in make test, 10,000 of them with CAMPAIGN=1. A life that differs is
// shortened and printed; -seed repeats one.
func TestCampaignLivesAgreeWithTheModel(t *testing.T) {
	n := newNature(t)
	tally := model.NewTally()
	first, lives := uint64(1), times(t, 300, 10_000)
	if os.Getenv("CAMPAIGN") != "" {
		first = uint64(time.Now().UnixNano())
	}
	if *modelSeed != 0 {
		first, lives = *modelSeed, 1
	}
	for seed := first; seed < first+uint64(lives); seed++ {
		life := model.Life(seed, movesOfALife)
		if err := n.live(life, tally); err != nil {
			n.explain(t, seed, life, err)
		}
	}
	t.Logf("seeds from %d: %+v", first, *tally)
	if *modelSeed != 0 {
		return
	}
	for _, r := range []refusal.Reason{
		refusal.APIKeyInvalid, refusal.DelegationExpired, refusal.DeliveryInvalid, refusal.LimitExceeded, refusal.NotActive, refusal.NotFound,
		refusal.OutcomeUnknown, refusal.Paused, refusal.PolicyDenied, refusal.ProviderUnavailable, refusal.QuorumMissing, refusal.RequestIDReused, refusal.RequestInvalid,
	} {
		if tally.Refused[r] < lives/100 {
			t.Errorf("%s was met %d times in %d lives: they reach too little", r, tally.Refused[r], lives)
		}
	}
	for _, o := range []string{model.Stored, model.Duplicate, model.Tombstoned, model.Ignored} {
		if tally.Outcomes[o] < lives/20 {
			t.Errorf("%s was met %d times in %d lives: they reach too little", o, tally.Outcomes[o], lives)
		}
	}
	if tally.Signed < lives || tally.Cuts < lives/4 {
		t.Errorf("%d signatures and %d kills within acts in %d lives: they reach too little", tally.Signed, tally.Cuts, lives)
	}
}

// explain fails with the shortest life that can be found to differ.
func (n *nature) explain(t *testing.T, seed uint64, life []model.Move, err error) {
	t.Helper()
	var differs *model.Differs
	if !errors.As(err, &differs) {
		t.Fatalf("seed %d: %v", seed, err)
	}
	short := model.Shrink(life, func(life []model.Move) bool {
		err := n.live(life, model.NewTally())
		return errors.As(err, &differs)
	})
	t.Fatalf("seed %d: %v\nshortened to\n%swhich says: %v", seed, err, model.Show(short), n.live(short, model.NewTally()))
}
