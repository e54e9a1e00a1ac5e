package delegation

import (
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// This file holds what is written into the vault: one JSON object a record, with
// a version first, decoded strictly. New members must work when absent. None of
// these types holds a secret; shares and API-key verifiers are records of their own.

const recordVersion = 1

// appliance is the one record of type vault.TypeAppliance, id "self".
type appliance struct {
	V         int          `json:"v"`
	ID        string       `json:"id"`
	CreatedAt time.Time    `json:"created_at"`
	Operators []registered `json:"operators"`
	// Quorum is how many operators must stamp an act.
	Quorum int `json:"quorum"`
	// CheckpointKey names the device's key that signs the journal's checkpoints.
	CheckpointKey string `json:"checkpoint_key"`
	Paused        *Pause `json:"paused,omitempty"`
	// PolicyFiles is the hash of the policy files that the journal last told of; "" for none ever.
	PolicyFiles string `json:"policy_files,omitempty"`
	// SealedFor is why an operator sealed the appliance; it stays sealed until the quorum unseals.
	SealedFor string `json:"sealed_for,omitempty"`
}

// registered is a registered public key and its name.
type registered struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	PublicKey []byte `json:"public_key"`
	// Party is what a WebAuthn credential was made for; nil for others.
	Party *credential.RelyingParty `json:"relying_party,omitempty"`
	// CreatedAt is absent for those of stores that were made before it was kept.
	CreatedAt *time.Time `json:"created_at,omitempty"`
	// ExpiresAt ends it; absent: until revoked.
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	// Line is the id of the first credential that this one came of by rotation; empty
	// for that one. Those of one line count once.
	Line string `json:"line,omitempty"`
	// LineEnds is when the first of its line would have ended by itself; no successor
	// lives longer. Absent: never.
	LineEnds *time.Time `json:"line_ends,omitempty"`
	// UnusedAlarm is after how many seconds without use somebody should ask; 0: never.
	UnusedAlarm uint32 `json:"unused_alarm,omitempty"`
	// UnusedTold: the journal has heard that it is unused, since it was last used.
	UnusedTold bool `json:"unused_told,omitempty"`
	// LastUsed is to the hour; absent: never used. Counter is an authenticator's last.
	LastUsed *time.Time `json:"last_used,omitempty"`
	Counter  uint32     `json:"counter,omitempty"`
}

type organization struct {
	V         int       `json:"v"`
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	// Parent made it, a sub-organization; empty for one that the operators made.
	Parent string `json:"parent,omitempty"`
	// Root are root members that are no users, RootUsers end users that are.
	Root      []registered `json:"root"`
	RootUsers []string     `json:"root_users,omitempty"`
	// Quorum is how many root members must stamp an act.
	Quorum int `json:"quorum"`
	// PolicyAuthority is "api", policies come under stamps, or "bundle", from signed
	// bundles alone. Fixed at creation.
	PolicyAuthority string `json:"policy_authority"`
	// BundleKeys and BundleQuorum say whose signatures a bundle needs; only of "bundle".
	BundleKeys   []registered `json:"bundle_keys,omitempty"`
	BundleQuorum int          `json:"bundle_quorum,omitempty"`
	// PolicyVersion moves with every change of its documents; 0 before the first.
	PolicyVersion uint64 `json:"policy_version,omitempty"`
	Paused        *Pause `json:"paused,omitempty"`
	// CountsFrom is when the organization was resumed after its store was restored from a
	// backup: what it spent before is not known. Nil: all is.
	CountsFrom *time.Time `json:"counts_from,omitempty"`
	// Delegated is what is proposed where nothing else is said; nil when it was never set.
	Delegated *DelegatedAccess `json:"delegated_access,omitempty"`
}

// UserKind says what a user may be.
type UserKind string

// The kinds of users.
const (
	EndUser       UserKind = "end_user"
	DelegatedUser UserKind = "delegated_user"
)

type user struct {
	V              int          `json:"v"`
	ID             string       `json:"id"`
	Organization   string       `json:"organization"`
	Name           string       `json:"name"`
	Kind           UserKind     `json:"kind"`
	CreatedAt      time.Time    `json:"created_at"`
	Credentials    []registered `json:"credentials,omitempty"`
	ShareRecipient string       `json:"share_recipient,omitempty"`
	// Tags are what policies call several users by.
	Tags []string `json:"tags,omitempty"`
	// Removed: a delegated user that acts no more.
	Removed bool `json:"removed,omitempty"`
}

// Status words of wallets, delegations and ceremonies.
const (
	statusPending = "pending"
	statusActive  = "active"
	statusRevoked = "revoked"
	statusExpired = "expired"
	statusFailed  = "failed"
	statusRunning = "running"
	statusWaiting = "waiting"
	statusDone    = "done"
)

type key struct {
	V            int    `json:"v"`
	ID           string `json:"id"`
	Organization string `json:"organization"`
	// Owner is an end user; empty for a key of the organization.
	Owner string `json:"owner"`
	// Delay: it was made to be delegated later (keydelegation.go).
	Delay     bool          `json:"delay_delegation,omitempty"`
	Scheme    chains.Scheme `json:"scheme"`
	CreatedAt time.Time     `json:"created_at"`
	// Origin is "in_process" for ever when one process once held the whole key, and
	// "imported" when it was whole somewhere before.
	Origin string `json:"origin"`
	Status string `json:"status"`
	// Root is the root set; its zero value until the ceremony ends.
	Root mpc.ShareSet `json:"root"`
	// Here lists the parties of the root set whose shares are sealed on this host.
	Here []mpc.Party `json:"here,omitempty"`
	// Device plays the user's party of the root set, a device's id; "" for none. Peer
	// plays the parties of a key of another appliance, by its configured name.
	Device string `json:"device,omitempty"`
	Peer   string `json:"peer,omitempty"`
	// Failures counts broken ceremonies by the party that broke them.
	Failures map[mpc.Party]int `json:"failures,omitempty"`
	// RotatedAt is when Root took the place of another set; zero for the first.
	RotatedAt time.Time `json:"rotated_at,omitzero"`
	// RotateEvery is how old Root may become before it is rotated; zero: any age.
	RotateEvery time.Duration `json:"rotate_every,omitempty"`
	// Renew: it was handed over and has the organization's root set still; a rotation is owed.
	Renew bool `json:"renew,omitempty"`
	// Presignatures lets delegations of the key keep presignatures in memory.
	Presignatures bool `json:"presignatures,omitempty"`
}

// rootSince is when the key got its root set.
func (k *key) rootSince() time.Time {
	if k.RotatedAt.IsZero() {
		return k.CreatedAt
	}
	return k.RotatedAt
}

// What Origin says.
const (
	originInProcess = "in_process"
	originImported  = "imported"
	// originDevice: the owner's share was made on a device and never was here.
	originDevice = "device"
	// originElsewhere: another appliance's key, of which this one got one share.
	originElsewhere = "elsewhere"
)

// custody is "host" while this host holds a quorum of the root set, "vendor" or
// "elsewhere" where another vendor or another appliance made the key.
func (k *key) custody() string {
	if k.Origin == originVendor || k.Origin == originElsewhere {
		return k.Origin // whatever the user there holds
	}
	if k.Root.Threshold == 0 || len(k.Here) >= k.Root.Threshold {
		return "host"
	}
	return "user"
}

type wallet struct {
	V            int       `json:"v"`
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Key          string    `json:"key"`
	Owner        string    `json:"owner"`
	Chain        string    `json:"chain"`
	Name         string    `json:"name"`
	Address      string    `json:"address,omitempty"`
	Status       string    `json:"status"`
	CreatedAt    time.Time `json:"created_at"`
	Paused       *Pause    `json:"paused,omitempty"`
	// Path and PublicKey are of a wallet whose key is derived from Key (BIP-32).
	Path      []uint32 `json:"path,omitempty"`
	PublicKey []byte   `json:"public_key,omitempty"`
	// Vendor is what a wallet of another vendor's is to it: webhook and wallet id of a
	// delivered share, vendor, account and signer of one that a credential stamps for. Its
	// PublicKey is empty on EVM chains: an address is all that is known of it.
	Vendor string `json:"vendor,omitempty"`
}

// publicKey is what the wallet's signatures verify with.
func (w *wallet) publicKey(k *key) []byte {
	if len(w.Path) > 0 || w.Vendor != "" {
		return w.PublicKey
	}
	return k.Root.PublicKey
}

// waitingShare is a user's share on its way out: ciphertext only. Its id is the wallet's.
type waitingShare struct {
	V          int       `json:"v"`
	Wallet     string    `json:"wallet"`
	Recipient  string    `json:"recipient"`
	Ciphertext []byte    `json:"ciphertext"`
	CreatedAt  time.Time `json:"created_at"`
}

type delegationRecord struct {
	V             int        `json:"v"`
	ID            string     `json:"id"`
	Organization  string     `json:"organization"`
	Wallet        string     `json:"wallet"`
	Owner         string     `json:"owner"`
	DelegatedUser string     `json:"delegated_user"`
	Status        string     `json:"status"`
	CreatedAt     time.Time  `json:"created_at"`
	ExpiresAt     *time.Time `json:"expires_at,omitempty"`
	Recipient     string     `json:"api_key_recipient"`
	// Endpoint got the delegate's share and the API key; "" where both stay here.
	Endpoint string          `json:"endpoint,omitempty"`
	Policies []policy.Policy `json:"policies"`
	Limits   []policy.Limit  `json:"limits,omitempty"`
	// Templates are what the delegated user may make orders of.
	Templates []Template `json:"templates,omitempty"`
	// OrganizationAllows lets ALLOW policies of the organization's documents count.
	OrganizationAllows bool `json:"organization_allows,omitempty"`
	// Set is the delegation's own 2-of-2 share set; zero until the ceremony ends.
	Set mpc.ShareSet `json:"share_set"`
	// APIKey is the id of its wallet API key; empty until active and after revocation.
	APIKey string `json:"api_key,omitempty"`
	// Peer holds the delegate's share, by its configured name, on its Invitation; "": it
	// is here. Where Vendor is there, too, the share is here, and Peer holds the server's.
	Peer       string `json:"peer,omitempty"`
	Invitation string `json:"invitation,omitempty"`
	// Version moves with every change; step 7 compares it.
	Version uint64 `json:"version"`
	// ApproveBy is until when the owner may approve; nil when nobody is waited for.
	ApproveBy *time.Time `json:"approve_by,omitempty"`
	// ApprovedAt is when the owner did; nil where the owner made it whole.
	ApprovedAt *time.Time `json:"approved_at,omitempty"`
	// Lifetime counts from the approval, in seconds; 0: ExpiresAt is all there is.
	Lifetime uint32 `json:"lifetime_seconds,omitempty"`
	// Paused holds this delegation alone.
	Paused *Pause `json:"paused,omitempty"`
	// Vendor is what was delivered to sign with; nil for our own. Set is that of another
	// sigild, and zero for another vendor.
	Vendor *signing.VendorShare `json:"vendor,omitempty"`
	// Credential stamps for it, in place of Set; nil for all others.
	Credential *signing.VendorCredential `json:"credential,omitempty"`
	// EndedAt is when it was revoked or its end was journaled.
	EndedAt *time.Time `json:"ended_at,omitempty"`
	// EndedAfter is the journal's last entry before the one that ended it; 0 until then.
	EndedAfter uint64 `json:"ended_after,omitempty"`
}

// expired reports whether now is at or after the end.
func (d *delegationRecord) expired(now time.Time) bool {
	return d.ExpiresAt != nil && !now.Before(*d.ExpiresAt)
}

// apiKeyRecord is what is kept of a wallet API key: never the key.
type apiKeyRecord struct {
	V          int       `json:"v"`
	ID         string    `json:"id"`
	Delegation string    `json:"delegation"`
	CreatedAt  time.Time `json:"created_at"`
	// Verifier is HMAC-SHA256(k_apikey, key).
	Verifier []byte `json:"verifier"`
	// Encrypted is the key in an age file for the recipient that was named.
	Encrypted []byte `json:"encrypted"`
}

type ceremonyRecord struct {
	V            int    `json:"v"`
	ID           string `json:"id"`
	Organization string `json:"organization"`
	// Kind is "keygen", "import", "issue", "rotate" or "recover".
	Kind   string `json:"kind"`
	Target string `json:"target"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
	// Stage is the last one it entered.
	Stage string `json:"stage,omitempty"`
	// Culprits broke it.
	Culprits  []mpc.Party `json:"culprits,omitempty"`
	StartedAt time.Time   `json:"started_at"`
	// Recovery: a keygen with a device makes a recovery share, too.
	Recovery bool `json:"recovery,omitempty"`
}

func encodeRecord(v any) ([]byte, error) { return vault.EncodeObject(v) }

func decodeRecord(b []byte, v any) error { return vault.DecodeObject(b, recordVersion, v) }
