package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/holiman/uint256"
)

// Limits bound what is spent in a window, by amount, by count or both. They are
// checked on charges that the decoders computed, whichever policy allowed the
// request, and all limits that cover a request must hold (limitcheck.go).

// MaxWindow is the longest rolling window.
const MaxWindow = 366 * 24 * time.Hour

// MaxKept is how many separate sums may stand behind one number that a limit
// compares; with more the limit refuses. The journal joins old ones long before.
const MaxKept = 100_000

// Per says whose spending a limit adds up in one sum.
type Per string

// The groups. The zero value is one sum for all that the limit covers.
const (
	PerAll         Per = ""
	PerUser        Per = "user"        // one sum for each user who asks
	PerDelegation  Per = "delegation"  // one for each delegation
	PerWallet      Per = "wallet"      // one for each wallet
	PerDestination Per = "destination" // one for each recipient of a charge; fees have none
)

var groups = []Per{PerAll, PerUser, PerDelegation, PerWallet, PerDestination}

// Limit bounds the spending of one asset, or how often anything is signed.
type Limit struct {
	// ID names the limit in decisions and in the journal, by the rules of a policy's id.
	ID string
	// Name is for people, by the rules of a policy's name. Conditions read a limit by
	// its name or its id: controls.<name>.
	Name string
	// Asset is a CAIP-19 id: eip155:<chain>/slip44:<coin>, eip155:<chain>/erc20:<address>,
	// solana:<genesis>/slip44:501 or solana:<genesis>/token:<mint>. Empty, with AnyAmount
	// only: every request counts, whatever it spends.
	Asset string
	// Max is what may be spent within any window, in the asset's smallest unit.
	// Spending exactly Max is allowed; 0 forbids spending.
	Max uint256.Int
	// AnyAmount: Max means nothing, MaxCount alone bounds.
	AnyAmount bool
	// MaxCount is how many requests that spend the asset may be approved within any
	// window; 0: any number.
	MaxCount uint64
	// Decimals is how many decimals the asset's unit for people has, 0 to 77. It is for
	// reading and writing amounts; Max is in the smallest unit all the same.
	Decimals uint8
	// Window is the length of the rolling window, whole seconds from 1 s to 366 d.
	// 0: everything ever spent counts.
	Window time.Duration
	// Delegation is whose requests are covered and counted. Empty: all requests of
	// the organization are, those of delegations included.
	Delegation string
	// Per splits what is covered into sums that are compared one by one. Under a
	// Delegation only PerAll and PerDestination have a meaning.
	Per Per
	// IncludeFees counts network fees too, before and now.
	IncludeFees bool
	// Control: the limit refuses nothing by itself. Conditions read it.
	Control bool
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
		l.diagnoseGroup(report)
		if l.AnyAmount && l.MaxCount == 0 {
			report(CodeBadBound, SeverityError, "it bounds neither an amount nor a count", "give max, max_count or both")
		}
		if l.Asset == "" && l.AnyAmount {
			continue
		}
		asset, err := CanonicalAsset(l.Asset)
		if err != nil {
			report(CodeBadAsset, SeverityError, err.Error(), "write eip155:1/slip44:60 or eip155:1/erc20:0x...")
			continue
		}
		l.Asset = asset
		if n, known := nativeDecimals(asset); l.Decimals > maxDecimals || known && l.Decimals != 0 && int(l.Decimals) != n {
			report(CodeBadBound, SeverityError, fmt.Sprintf("%d are not the decimals of this asset", l.Decimals), "leave decimals out and write max in the smallest unit")
		}
		if strings.Contains(asset, "/slip44:") && !l.IncludeFees && l.Per != PerDestination {
			report(CodeNoFees, SeverityLint, "fees are paid in this asset and do not count", "include fees, or bound them in a policy")
		}
	}
	return sorted
}

// maxDecimals is that of the longest number below 2^256.
const maxDecimals = 77

func (l *Limit) diagnoseGroup(report func(code string, severity Severity, message, suggestion string)) {
	switch {
	case !slices.Contains(groups, l.Per):
		report(CodeBadGroup, SeverityError, fmt.Sprintf("there is no group %q", l.Per), didYouMean(string(l.Per), []string{"user", "delegation", "wallet", "destination"}))
	case l.Delegation != "" && l.Per != PerAll && l.Per != PerDestination:
		report(CodeBadGroup, SeverityError, "a delegation is one user's, of one wallet: its limits are one sum, or one for each destination", "leave per or delegation out")
	case l.Per == PerDestination && l.IncludeFees:
		report(CodeBadGroup, SeverityError, "fees go to no destination that a payload names", "bound fees in a limit without per")
	}
}
