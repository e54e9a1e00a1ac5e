package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// Limits bound what is spent of an asset in a window. They are checked on
// charges that the decoders computed, whichever policy allowed the request, and
// all limits that cover a request must hold.

// MaxWindow is the longest rolling window.
const MaxWindow = 366 * 24 * time.Hour

// Limit bounds the spending of one asset.
type Limit struct {
	// ID names the limit in decisions and in the journal, by the rules of a policy's id.
	ID string
	// Name is for people, by the rules of a policy's name.
	Name string
	// Asset is a CAIP-19 id: eip155:<chain>/slip44:<coin>, eip155:<chain>/erc20:<address>,
	// solana:<genesis>/slip44:501 or solana:<genesis>/token:<mint>.
	Asset string
	// Max is what may be spent within any window, in the asset's smallest unit.
	// Spending exactly Max is allowed; 0 forbids spending.
	Max uint256.Int
	// Window is the length of the rolling window, whole seconds from 1 s to 366 d.
	// 0: everything ever spent counts.
	Window time.Duration
	// Delegation is whose requests are covered and counted. Empty: all requests of
	// the organization are, those of delegations included, in one sum.
	Delegation string
	// IncludeFees counts network fees too, before and now.
	IncludeFees bool
}

// SpentQuery asks how much was spent before.
type SpentQuery struct {
	// Delegation selects whose charges count; empty: everybody's.
	Delegation string
	// Asset is canonical, as [CanonicalAsset] returns it.
	Asset string
	// IncludeFees: charges for fees count, else they do not.
	IncludeFees bool
	// Since selects charges that took effect after this instant, and all that are
	// still in flight. The zero time selects all.
	Since time.Time
}

// Spending is a request as limits see it.
type Spending struct {
	// Chain is the CAIP-2 id of the payload's chain.
	Chain string
	// Charges are the payload's, all of them.
	Charges []chains.Charge
	// Opaque: part of the payload was not understood.
	Opaque bool
	// Delegation is the delegation that asks; empty when the owner does.
	Delegation string
	Now        time.Time
	// Spent sums charges that were reserved before. It reports unbounded when one
	// of them has no bound; a sum beyond 2^256-1 must be reported as that too. It
	// is called under the lock under which the request will be reserved.
	Spent func(SpentQuery) (sum uint256.Int, unbounded bool)
}

// LimitExceeded is the refusal of a limit.
type LimitExceeded struct {
	LimitID, Name string
	// Delegation is whose requests the limit counts, as in [Limit].
	Delegation string
	// Asset is the limit's, canonical.
	Asset string
	// Max, Spent and Asked are in the asset's smallest unit. Spent does not include
	// Asked.
	Max, Spent, Asked uint256.Int
	// AskedUnbounded: it cannot be computed how much the request spends.
	AskedUnbounded bool
	// SpentUnbounded: it cannot be computed how much was spent before.
	SpentUnbounded bool
	// RetryAfter is how long to wait until the same request would pass if nothing
	// else is spent, rounded up to seconds; 0: waiting does not help.
	RetryAfter time.Duration
}

func (e *LimitExceeded) Error() string {
	switch {
	case e.AskedUnbounded:
		return fmt.Sprintf("limit %q: what the request spends of %s has no known bound", e.title(), e.Asset)
	case e.SpentUnbounded:
		return fmt.Sprintf("limit %q: what was spent of %s has no known bound", e.title(), e.Asset)
	}
	return fmt.Sprintf("limit %q: %s of %s asked, %s of %s spent", e.title(), e.Asked.Dec(), e.Asset, e.Spent.Dec(), e.Max.Dec())
}

func (e *LimitExceeded) title() string {
	if e.Name != "" {
		return e.Name
	}
	return e.LimitID
}

// CheckLimits checks the set's limits; see [Check].
func (s *Set) CheckLimits(sp Spending) *LimitExceeded { return Check(s.limits, sp) }

// Check returns nil when every limit that covers the spending holds, else the
// first that does not, in the order given. A limit covers what its delegation
// spends of its asset; a spending that asks nothing of the asset passes. It
// reads sp.Spent and changes nothing.
//
// An opaque payload could spend what no charge tells of, so it fails every limit
// of its chain that it could touch: on EVM chains those on tokens (native value
// and fee are always known from the transaction itself, and other payloads that
// are not understood carry a charge of native coins without a bound), elsewhere all.
func Check(limits []Limit, sp Spending) *LimitExceeded {
	for i := range limits {
		l := &limits[i]
		if l.Delegation != "" && l.Delegation != sp.Delegation {
			continue
		}
		if e := l.check(sp); e != nil {
			return e
		}
	}
	return nil
}

func (l *Limit) check(sp Spending) *LimitExceeded {
	asset, err := CanonicalAsset(l.Asset)
	refusal := &LimitExceeded{LimitID: l.ID, Name: l.Name, Delegation: l.Delegation, Asset: asset, Max: l.Max}
	if err != nil { // an uncompiled limit: nothing can be said of it
		refusal.Asset, refusal.AskedUnbounded = l.Asset, true
		return refusal
	}
	asked, unbounded := l.asked(asset, sp)
	if unbounded {
		refusal.AskedUnbounded = true
		return refusal
	}
	if asked.IsZero() {
		return nil
	}
	refusal.Asked = asked
	query := SpentQuery{Delegation: l.Delegation, Asset: asset, IncludeFees: l.IncludeFees}
	if l.Window > 0 {
		query.Since = sp.Now.Add(-l.Window)
	}
	refusal.Spent, refusal.SpentUnbounded = sp.Spent(query)
	if !refusal.SpentUnbounded && fits(&refusal.Spent, &asked, &l.Max) {
		return nil
	}
	refusal.RetryAfter = l.retryAfter(query, &asked, sp)
	return refusal
}

// asked sums what the request spends of the asset.
func (l *Limit) asked(asset string, sp Spending) (sum uint256.Int, unbounded bool) {
	if sp.Opaque && couldTouch(asset, sp.Chain) {
		return sum, true
	}
	for i := range sp.Charges {
		c := &sp.Charges[i]
		if c.What == "fee" && !l.IncludeFees {
			continue
		}
		if c.Asset != asset {
			if c.Asset == c.Chain+"/"+chains.AnyToken { // any token, never the chain's own coin
				if strings.HasPrefix(asset, c.Chain+"/") && !strings.HasPrefix(asset, c.Chain+"/slip44:") {
					return sum, true
				}
				continue
			}
			own, err := CanonicalAsset(c.Asset)
			if err != nil && within(c.Chain, asset) {
				return sum, true // what cannot be read may be any asset of its chain
			}
			if own != asset {
				continue
			}
		}
		if c.Unbounded {
			return sum, true
		}
		if _, overflow := sum.AddOverflow(&sum, &c.Amount); overflow {
			return sum, true
		}
	}
	return sum, false
}

// couldTouch says whether an opaque payload of the chain could spend the asset.
func couldTouch(asset, chain string) bool {
	if chain != "" && !within(chain, asset) {
		return false
	}
	own, reference, _ := strings.Cut(asset, "/")
	return !(strings.HasPrefix(own, "eip155:") && strings.HasPrefix(reference, "slip44:"))
}

// within says whether an asset is one of the chain's; "eip155" is every EVM chain.
func within(chain, asset string) bool {
	own, _, _ := strings.Cut(asset, "/")
	return own == chain || !strings.Contains(chain, ":") && strings.HasPrefix(own, chain+":")
}

// fits reports spent + asked <= most, without wrapping around.
func fits(spent, asked, most *uint256.Int) bool {
	var sum uint256.Int
	_, overflow := sum.AddOverflow(spent, asked)
	return !overflow && !sum.Gt(most)
}

// retryAfter searches for the first second at which enough has left the window.
// What was spent since a later instant is never more, so halving finds it.
func (l *Limit) retryAfter(query SpentQuery, asked *uint256.Int, sp Spending) time.Duration {
	if l.Window == 0 || asked.Gt(&l.Max) {
		return 0
	}
	seconds := sort.Search(int(l.Window/time.Second)+1, func(s int) bool {
		query.Since = sp.Now.Add(time.Duration(s)*time.Second - l.Window)
		spent, unbounded := sp.Spent(query)
		return !unbounded && fits(&spent, asked, &l.Max)
	})
	if seconds > int(l.Window/time.Second) {
		return 0 // what is in flight alone is too much
	}
	return time.Duration(seconds) * time.Second
}

// caip2 and caip19 check the grammars of CAIP-2 and CAIP-19.
func caip2(s string) bool {
	namespace, reference, ok := strings.Cut(s, ":")
	return ok && spelled(namespace, 3, 8, "-") && strings.ToLower(namespace) == namespace && spelled(reference, 1, 32, "-_")
}

func caip19(s string) bool {
	namespace, reference, ok := strings.Cut(s, ":")
	return ok && spelled(namespace, 3, 8, "-") && strings.ToLower(namespace) == namespace && spelled(reference, 1, 128, "-.%")
}

// spelled reports whether s is letters, digits and the given others.
func spelled(s string, least, most int, others string) bool {
	for i := range len(s) {
		if c := s[i]; c == '_' || !isLetter(c) && !isDigit(c) {
			if strings.IndexByte(others, c) < 0 {
				return false
			}
		}
	}
	return len(s) >= least && len(s) <= most
}

// CanonicalAsset returns the one spelling of a CAIP-19 id by which charges and
// limits are compared: token contracts of EVM chains in lower case. It refuses
// what the chains of this build cannot charge for.
func CanonicalAsset(s string) (string, error) {
	chain, asset, ok := strings.Cut(s, "/")
	if !ok || !caip2(chain) || !caip19(asset) {
		return "", fmt.Errorf("reading asset %q: not a CAIP-19 id", s)
	}
	family, chainRef, _ := strings.Cut(chain, ":")
	standard, reference, _ := strings.Cut(asset, ":")
	bad := func(why string) (string, error) { return "", fmt.Errorf("reading asset %q: %s", s, why) }
	switch {
	case family != "eip155" && family != "solana":
		return bad("unknown chain family " + family)
	case family == "eip155" && !decimal(chainRef):
		return bad("an EVM chain id is decimal")
	case standard == "slip44":
		if !decimal(reference) {
			return bad("a slip44 coin is decimal")
		}
		return s, nil
	case family == "eip155" && (standard == "erc20" || standard == "erc721" || standard == "erc1155"):
		a, err := evm.ParseAddress(reference)
		if err != nil {
			return bad(strings.TrimPrefix(err.Error(), "parsing address: "))
		}
		return fmt.Sprintf("%s/%s:0x%x", chain, standard, a), nil
	case family == "solana" && standard == "token":
		if _, err := solana.ParseAddress(reference); err != nil {
			return bad("a mint is base58 of 32 bytes")
		}
		return s, nil
	}
	return bad("unknown asset standard " + standard)
}

func decimal(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == "" && (s == "0" || s[0] != '0')
}

// compileLimits checks limits and returns them ordered by id, assets canonical.
func compileLimits(limits []Limit, add func(Diagnostic)) []Limit {
	sorted := slices.Clone(limits)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].ID < sorted[j].ID })
	for i := range sorted {
		l := &sorted[i]
		report := func(code string, severity Severity, message, suggestion string) {
			add(Diagnostic{ID: l.ID, Clause: ClauseLimit, Code: code, Severity: severity, Offset: -1, Message: message, Suggestion: suggestion})
		}
		if !validID(l.ID) || !validName(l.Name) || l.Delegation != "" && !validID(l.Delegation) {
			report(CodeBadID, SeverityError, "ids are printable ASCII without spaces, names printable UTF-8", "")
		}
		if i > 0 && sorted[i-1].ID == l.ID {
			report(CodeDuplicateID, SeverityError, "two limits have this id", "")
		}
		if l.Window < 0 || l.Window > MaxWindow || l.Window%time.Second != 0 {
			report(CodeBadWindow, SeverityError, "a window is whole seconds from 1 s to 366 d, or 0 for the whole life", "")
		}
		asset, err := CanonicalAsset(l.Asset)
		if err != nil {
			report(CodeBadAsset, SeverityError, err.Error(), "write eip155:1/slip44:60 or eip155:1/erc20:0x...")
			continue
		}
		l.Asset = asset
		if strings.Contains(asset, "/slip44:") && !l.IncludeFees {
			report(CodeNoFees, SeverityLint, "fees are paid in this asset and do not count", "include fees, or bound them in a policy")
		}
	}
	return sorted
}
