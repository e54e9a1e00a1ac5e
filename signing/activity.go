package signing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
)

// Activity is a request that waits for people: what they are shown, and, as
// [Activity.Encode] writes it, what they stamp. It never changes. Whether it is still
// to be decided, and by whom it was approved, stands beside it.
type Activity struct {
	// ID is "act_…", drawn when it was made, as Nonce was: an approval of another
	// activity is none of this one, whatever else they share.
	ID    string
	Nonce [16]byte
	// ApplianceID, Organization, Delegation, Wallet and Requester are ids; the requester
	// is the delegated user. RequestID is the caller's: it alone is signed under it.
	ApplianceID, Organization, Delegation, Wallet, Requester, RequestID string
	// Kind, Chain and Address are those of the payload and the wallet.
	Kind           chains.Kind
	Chain, Address string
	// PayloadDigest is SHA-256 of the payload, with a Solana message's blockhash zeroed
	// where it has an ordinary one (chains.Decoded.Lasting).
	PayloadDigest [32]byte
	// PolicySet names what judged; when that changes the activity is void.
	PolicySet [32]byte
	// CreatedAt and ExpiresAt are whole milliseconds. At ExpiresAt it is over.
	CreatedAt, ExpiresAt time.Time
	// Summary says in plain ASCII what the payload does.
	Summary string
}

// Bounds of an activity's life.
const (
	DefaultApprovalTime = 10 * time.Minute
	MaxApprovalTime     = 24 * time.Hour
	minApprovalTime     = time.Second
)

// activityDomain begins every encoded activity.
const activityDomain = "sigild/activity/v1"

// maxActivityField bounds a field; a summary is the longest.
const maxActivityField = 64 << 10

// Encode gives the one form of the activity: each part after its length as four
// bytes, big-endian, in the order of docs/formats.md; times are milliseconds since
// 1970 as eight bytes.
func (a *Activity) Encode() []byte {
	var out []byte
	put := func(part []byte) { out = append(binary.BigEndian.AppendUint32(out, uint32(len(part))), part...) }
	text := func(parts ...string) {
		for _, p := range parts {
			put([]byte(p))
		}
	}
	text(activityDomain, a.ID)
	put(a.Nonce[:])
	text(a.ApplianceID, a.Organization, a.Delegation, a.Wallet, a.Requester, a.RequestID, string(a.Kind), a.Chain, a.Address)
	put(a.PayloadDigest[:])
	put(a.PolicySet[:])
	put(binary.BigEndian.AppendUint64(nil, uint64(a.CreatedAt.UnixMilli())))
	put(binary.BigEndian.AppendUint64(nil, uint64(a.ExpiresAt.UnixMilli())))
	text(a.Summary)
	return out
}

// ErrActivity: the bytes are not those of an activity.
var ErrActivity = errors.New("not an activity as sigild encodes it")

// ParseActivity reads exactly what [Activity.Encode] writes. The error is [ErrActivity].
func ParseActivity(b []byte) (*Activity, error) {
	rest, short := b, false
	next := func() []byte {
		if len(rest) < 4 {
			short = true
			return nil
		}
		n := binary.BigEndian.Uint32(rest)
		if rest = rest[4:]; n > maxActivityField || int(n) > len(rest) {
			short = true
			return nil
		}
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	fixed := func(to []byte) { short = copy(to, next()) != len(to) || short }
	at := func() time.Time {
		var ms [8]byte
		fixed(ms[:])
		return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:]))).UTC()
	}
	domain := string(next())
	a := &Activity{ID: string(next())}
	fixed(a.Nonce[:])
	for _, to := range []*string{&a.ApplianceID, &a.Organization, &a.Delegation, &a.Wallet, &a.Requester, &a.RequestID, (*string)(&a.Kind), &a.Chain, &a.Address} {
		*to = string(next())
	}
	fixed(a.PayloadDigest[:])
	fixed(a.PolicySet[:])
	a.CreatedAt, a.ExpiresAt = at(), at()
	a.Summary = string(next())
	if short || len(rest) > 0 || domain != activityDomain || !bytes.Equal(a.Encode(), b) {
		return nil, ErrActivity
	}
	return a, nil
}

// covers is the payload digest of d.
func covers(d *chains.Decoded) [32]byte { return sha256.Sum256(d.Lasting()) }

// Consent is what people made of an activity, at one moment. It is immutable.
type Consent struct {
	Activity *Activity
	// Rejected ends the activity for good.
	Rejected bool
	// Approvers are the users whose approval counts now, each once, and Credentials
	// what they stamped with.
	Approvers   []policy.User
	Credentials []policy.Credential
}

// same reports whether two looks at an activity saw the same people say the same.
func (c *Consent) same(as *Consent) bool {
	if c == nil || as == nil {
		return c == as
	}
	return c.Activity.ID == as.Activity.ID && c.Rejected == as.Rejected && fmt.Sprint(c.Approvers, c.Credentials) == fmt.Sprint(as.Approvers, as.Credentials)
}

// NewActivity asks for a pending activity.
type NewActivity struct {
	// Activity lacks ID, Nonce, ApplianceID and CreatedAt, and of ExpiresAt the time from
	// which it counts: that is Life.
	Activity Activity
	Life     time.Duration
	Payload  []byte
	// Waiting are the ids of the policies that would allow it but for their consensus.
	Waiting []string
	// Entry is the journal's but for its facts.
	Entry journal.Entry
}

// Activities keeps what waits for people; package delegation does. Its errors are
// *refusal.Error or storage errors.
type Activities interface {
	// Consent looks at the activity of a request id; nil for none. Who may not approve
	// any more, because user or credential are gone, is not in it.
	Consent(organization, requestID string) *Consent
	// OpenActivity makes a pending activity. Durable, with its entry, on return.
	OpenActivity(ctx context.Context, p NewActivity) (*Activity, error)
}
