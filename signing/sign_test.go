package signing_test

import (
	"bytes"
	"testing"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
)

func TestSignsAllowedTransfers(t *testing.T) {
	h, g := newHouse(t, terms{set: mpctest.ECDSADelegateSet(t)}, terms{})
	if r := h.mustSign(g[0], "ether", transfer(t, 7, 400)); r.Rule != "pol_0" || r.Summary == "" {
		t.Errorf("result %+v, want rule pol_0 and a summary", r)
	}
	if spent := h.spent(g[0], wei); spent != 400 {
		t.Errorf("%d wei charged, want 400", spent)
	}
	r := h.mustSign(g[1], "lamports", g[1].pay(400, 1))
	approved, signed := h.entries(journal.KindApproved)[1], h.entries(journal.KindSigned)[1]
	if approved.Seq != r.Sequence || approved.Rule != "pol_0" || approved.Delegation != g[1].id || approved.Wallet != g[1].wallet ||
		approved.User != site.bot || approved.Method != signMethod || *approved.Caller != caller || approved.PolicySet == "" ||
		approved.Reason != r.Summary || len(approved.Trace) != 1 || approved.ShareSet != g[1].set.ID {
		t.Errorf("approved entry does not tell all: %+v", approved)
	}
	if a := approved.Asked; a == nil || a.Kind != string(chains.KindSolanaMessage) || a.Address == "" || len(a.Payload) == 0 {
		t.Errorf("asked: %+v", a)
	}
	if len(approved.Charges) == 0 || approved.Charges[0].Asset != sol || approved.Charges[0].Amount != "400" {
		t.Errorf("charges %+v, want 400 lamports", approved.Charges)
	}
	if signed.ApprovedSeq != approved.Seq || !bytes.Equal(signed.Answer, r.Signature) || signed.Digest != approved.Digest {
		t.Errorf("signed entry %+v does not end approval %d", signed, approved.Seq)
	}
}

// Two delegations of one organization count apart, and a key opens its own only.
func TestGrantsAreApart(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(400, day)}, terms{limits: limit(400, day)})
	h.mustSign(g[0], "one", g[0].pay(400, 1))
	h.mustSign(g[1], "two", g[1].pay(400, 2))
	if a, b := h.spent(g[0], sol), h.spent(g[1], sol); a != 400 || b != 400 {
		t.Errorf("spent %d and %d, want 400 each", a, b)
	}
}

// A fee counts where the limit says so.
func TestLimitMayIncludeFees(t *testing.T) {
	h, g := newHouse(t,
		terms{limits: []policy.Limit{{Name: "all", Asset: sol, Max: *uint256.NewInt(400), Window: day, IncludeFees: true}}},
		terms{limits: limit(400, day)})
	_, err := h.sign(g[0], "with-fee", g[0].pay(400, 1))
	if no := wantRefusal(t, err, "LIMIT_EXCEEDED"); no.After != 0 {
		t.Errorf("retry after %v, but waiting does not help", no.After)
	}
	h.mustSign(g[1], "without-fee", g[1].pay(400, 1))
}
