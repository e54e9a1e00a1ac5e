package signing

import (
	"context"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
)

// Standing is what is known of a delegation at one moment: whose it is, what it
// signs with and under which rules. It is immutable; a change makes a new one
// with a higher Version.
type Standing struct {
	// Delegation, Organization, Owner, DelegatedUser and APIKey are ids.
	Delegation, Organization, Owner, DelegatedUser, APIKey string
	// DelegatedUserName is for policies and people.
	DelegatedUserName string
	// Approvers are the users who ask, Credentials what they asked with: the delegated
	// user and its wallet API key, or everybody whose stamp the request carried. A
	// standing by stamps has no Delegation and no APIKey; DelegatedUser is the first of them.
	Approvers   []policy.User
	Credentials []policy.Credential
	// Stamps are the keys behind the stamps, for the authority; nil for a wallet API key.
	Stamps []credential.PublicKey
	// Version moves with every change of the delegation, its wallet, its key, its
	// share set, its rules or its credentials.
	Version uint64
	Wallet  WalletInfo
	// Set is the delegation's own share set.
	Set mpc.ShareSet
	// Vendor is what was delivered, in place of ShareIDs; nil for delegations of our own.
	// Another vendor's has no Set, and its program signs; another sigild's has a Set and a Peer.
	Vendor *VendorShare
	// Credential stamps requests to the vendor that keeps the wallet, in place of all
	// that signs here; nil for wallets whose signatures are made here.
	Credential *VendorCredential
	// ShareIDs name the shares in the vault that sign, in the order of Set.Parties.
	ShareIDs []string
	// Here are the parties of ShareIDs, and Elsewhere those that another process plays
	// in each signature; none when all are here. Both are sorted. Peer is the configured
	// peer that plays them; "" when who asks does.
	Here, Elsewhere []mpc.Party
	Peer            string
	// Rules are the compiled policies and limits of all layers that judge its requests.
	Rules *policy.Set
	// Interfaces are what payloads are read with.
	Interfaces signable.Interfaces
	// PolicySet names Rules, Interfaces and all else that judges; it moves with every change of them.
	PolicySet [32]byte
	// Fixed names what PolicySet does but for orders, which come and go with use: a
	// request is judged anew when it moves.
	Fixed [32]byte
	// Orders say how much the open orders among Rules allow together, by id.
	Orders map[string]OrderBound
	// ExpiresAt is the end; zero means until revoked.
	ExpiresAt time.Time
	// CountsFrom is the time before which it is not known what the organization spent;
	// zero: all is known. Of the delegation's own spending all is known when it is Young,
	// made after that time.
	CountsFrom time.Time
	Young      bool
	// Ended is the refusal that a delegation which signs no more answers with, nil while active.
	Ended error
}

// credentialIDs are what authenticated the request, for the journal.
func (st *Standing) credentialIDs() []string {
	ids := make([]string, len(st.Credentials))
	for i, c := range st.Credentials {
		ids[i] = c.ID
	}
	return ids
}

// moved reports whether a request that was judged under then has to be judged anew.
func (st *Standing) moved(then *Standing) bool {
	return st.Version != then.Version || st.Fixed != then.Fixed
}

// forgets says whether what a limit asks reaches back to a time of which it is not
// known what was spent.
func (st *Standing) forgets(q policy.SpentQuery) bool {
	if !q.Since.Before(st.CountsFrom) {
		return false
	}
	own := q.Delegation != "" || q.Per == policy.PerDelegation
	return !(own && st.Young)
}

// AppliancePrefix begins the ids of rules from the appliance's policy files. What
// they say is no business of the organizations that they judge.
const AppliancePrefix = "appliance/"

// OrderBound is how much an open order allows together.
type OrderBound struct {
	// Transactions is how many it allows, 1 or more.
	Transactions int
	// Totals are limits on what they spend together; nil: their condition alone bounds each.
	Totals *policy.Set
}

// OrderPrefix begins the ids of orders: policies that allow so many transactions.
const OrderPrefix = "ord_"

func isOrder(rule string) bool { return strings.HasPrefix(rule, OrderPrefix) }

// WalletInfo is the wallet as signing and policies see it.
type WalletInfo struct {
	ID, Name, Key string
	// Chain is "eip155" or the CAIP-2 id of a Solana cluster.
	Chain string
	// Address in its chain's own spelling.
	Address   string
	Scheme    chains.Scheme
	PublicKey []byte
	// Path is the wallet's path below its key; empty for the key itself.
	Path []uint32
}

// Authority says who may sign for whom; package delegation is the one that
// signing asks. Its errors are *refusal.Error or storage errors. A Standing that
// it returns may be shared and is never modified.
type Authority interface {
	// Authenticate opens a delegation by wallet id and wallet API key. An unknown
	// wallet, an unknown key and a wrong key are the same refusal, in the same time.
	Authenticate(walletID string, apiKey []byte) (*Standing, error)
	// AuthenticateStamps is Authenticate for users of an organization whose stamps over
	// the request were verified.
	AuthenticateStamps(organization, walletID string, by []credential.PublicKey) (*Standing, error)
	// AuthenticateParty opens a wallet for whom the server knows by a pinned key: the
	// owner's device, or the appliance that holds the other shares. With a wallet API
	// key it opens a delegation whose share was delivered to that appliance.
	AuthenticateParty(walletID, party string, apiKey []byte) (*Standing, error)
	// Enter reads the standing again, and counts a signature as under way until
	// leave is called: a revocation is acknowledged only after that. It is called
	// inside the transaction of step 7.
	Enter(then *Standing) (st *Standing, leave func(), err error)
	// Current reads the standing for the last check before the last share leaves.
	Current(then *Standing) (*Standing, error)
	// Filled removes an order whose last signature was journaled. That the order allows
	// nothing else any more is already so by its replay keys; an error is for the log.
	Filled(ctx context.Context, delegationID, order string) error
	Activities
}
