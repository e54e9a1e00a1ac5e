package signing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Replay guards: names under which at most one digest is approved, ever. A decoder
// names what its chain takes once (a nonce of an account, a value of a durable nonce);
// orders and one-time policies are names of our own. The journal takes them with the
// approval and gives them back only when the last share provably was not sent.

// guardKeys are the decoder's names, each within its organization: a nonce account, a
// Safe or a smart account may be named by anybody's payload, and must not be taken
// from those who own it.
func guardKeys(st *Standing, d *chains.Decoded) []string {
	keys := make([]string, len(d.ReplayKeys), len(d.ReplayKeys)+1)
	for i, k := range d.ReplayKeys {
		keys[i] = st.Organization + "/" + k
	}
	return keys
}

// taken finds the first of a payload's guards under which something else was signed;
// -1 for none.
func taken(known journal.View, guards []string, d *chains.Decoded) int {
	return slices.IndexFunc(guards, func(k string) bool {
		digest, ok := known.ReplayKey(k)
		return ok && digest != digestOf(d)
	})
}

// raise is by how much every rate of a bid must rise, as one part of it: less, and
// nodes keep the transaction that they have (go-ethereum, DefaultConfig.PriceBump).
const raise = 10

// replacement finds what the payload takes the place of, or refuses: only what the
// same delegation signed, for lower fees, and whose outcome is known.
func replacement(known journal.View, st *Standing, key, name string, d *chains.Decoded) (*journal.Replaced, error) {
	no := func(format string, args ...any) error {
		return refusal.New(refusal.PolicyDenied, "something else was signed under %s, and "+format, append([]any{name}, args...)...).With("rule", replayGuard)
	}
	h, ok, err := known.Holder(key)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, no("it is too new or too old to be replaced")
	case h.Approved.Delegation != st.Delegation || h.Approved.Wallet != st.Wallet.ID:
		return nil, no("another delegation did it")
	case !h.Signed:
		return nil, no("its outcome is not known: ask again with its request_id first")
	}
	old, err := readBid(h.Approved.Facts[factBid])
	if err != nil || len(old) == 0 || len(old) != len(d.Bid) {
		return nil, no("the two have no fees to compare")
	}
	for i := range old {
		part := new(uint256.Int).AddUint64(&old[i], raise-1)
		least, overflow := new(uint256.Int).AddOverflow(&old[i], part.Div(part, uint256.NewInt(raise)))
		if overflow || d.Bid[i].Lt(least) || !d.Bid[i].Gt(&old[i]) {
			return nil, no("its fees are not a tenth higher: %s for each gas, after %s", showBid(d.Bid), showBid(old))
		}
	}
	r := &journal.Replaced{ApprovedSeq: h.Approved.Seq, ChargedMS: h.ChargedAt.UnixMilli()}
	if before := h.Approved.Replaces; before != nil {
		r.Charges = slices.Clone(before.Charges)
	}
	if r.Charges = append(r.Charges, h.Approved.Charges); len(r.Charges) > journal.MaxReplaced {
		return nil, no("it was replaced %d times already", journal.MaxReplaced)
	}
	return r, nil
}

// factBid is where an approval's entry keeps the payload's bid: decimal numbers with
// commas between them.
const factBid = "bid"

// noteBid keeps it for a transaction that would come in this one's place.
func noteBid(e *journal.Entry, d *chains.Decoded) {
	if len(d.Bid) == 0 {
		return
	}
	e.Note(factBid, showBid(d.Bid))
}

func showBid(bid []uint256.Int) string {
	rates := make([]string, len(bid))
	for i := range bid {
		rates[i] = bid[i].Dec()
	}
	return strings.Join(rates, ",")
}

func readBid(s string) ([]uint256.Int, error) {
	var bid []uint256.Int
	for rate := range strings.SplitSeq(s, ",") {
		n, err := policy.ParseAmount(rate)
		if err != nil {
			return nil, err
		}
		bid = append(bid, n)
	}
	return bid, nil
}

// replayGuard is the rule that refusals of a replay name.
const replayGuard = "replay-guard"

// allowedBy picks the policy under which the request is approved: one that is not
// used up by it if there is one, else the first order or one-time policy that has a
// place left for it, and room in its totals. name, when it is set, is what something else was signed
// under: then only policies count that let it be replaced.
func allowedBy(known journal.View, st *Standing, decision policy.Decision, d *chains.Decoded, name string) (allowing, error) {
	var once allowing
	var used *policy.PolicyResult
	var over error
	for i := range decision.Policies {
		p := &decision.Policies[i]
		if p.Effect != policy.Allow || p.Outcome != policy.Matched || name != "" && !p.Replace {
			continue
		}
		all := places(st, p)
		if len(all) == 0 {
			return allowing{PolicyResult: p}, nil
		}
		place := freePlace(known, all, digestOf(d))
		if place == "" {
			used = p
		} else if err := checkTotals(known, st, p.ID, d); err != nil {
			over = err
		} else if once.PolicyResult == nil {
			once = allowing{p, place}
		}
	}
	switch {
	case once.PolicyResult != nil:
		return once, nil
	case over != nil:
		return allowing{}, over
	case used != nil && isOrder(used.ID):
		return allowing{}, refusal.New(refusal.PolicyDenied, "the order is filled: it allowed other transactions, and no more").With("rule", used.ID)
	case used != nil:
		return allowing{}, refusal.New(refusal.PolicyDenied, "the policy is used up: it allowed another transaction, and allows one").With("rule", used.ID)
	case name != "":
		return allowing{}, refusal.New(refusal.PolicyDenied, "something else was signed under %s", name).With("rule", replayGuard)
	}
	return allowing{}, fmt.Errorf("approving: %v by no rule", decision.Outcome)
}
