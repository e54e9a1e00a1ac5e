// Package signing is the one place where a request becomes a signature. A caller
// that holds a wallet API key hands in a payload; ten steps, the same as in
// docs/request.md, decide whether the shares are lent to the parties and the
// signature leaves.
//
// It refuses what it can't decode, what no policy allows, what a limit does not
// cover, and everything when the journal can't be written. There is no other way
// to a share: steps 8 to 10 take only an [approved] value, which step 7 alone makes.
package signing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Config builds a [Service].
type Config struct {
	Authority Authority
	Vault     *vault.Vault
	Journal   *journal.Journal
	// Timeout ends a threshold signature that hangs; zero means 20 s.
	Timeout time.Duration
	// MaxConcurrent threshold signatures run at once; zero means 8. Twice as many
	// again may wait; what comes beyond is refused with RATE_LIMITED.
	MaxConcurrent int
	// Failed counts a failed signature against who broke it, in the transaction that
	// journals it; nil counts nothing. Durable when that is.
	Failed func(tx *vault.Tx, key string, cause error) error
	// Presignatures are taken where there are some; nil: every signature is made whole.
	Presignatures *Presignatures
	// Vendors signs for wallets of other vendors'; nil: nothing does.
	Vendors VendorSigner
	// Stamper stamps for wallets that vendors keep; nil: nothing does.
	Stamper Stamper
	// Dial reaches a configured peer; done hangs up. apiKey is lent until it returns, and
	// nil where the peer's pin is all that is needed. nil: there is none.
	Dial func(ctx context.Context, peer string, apiKey []byte) (conn mpc.Conn, done func(), err error)
	// Refusals says which refusals get an entry of their own; nil: all do.
	Refusals *journal.Refusals
	// Now is the time to go by; nil means time.Now.
	Now func() time.Time
	// TimeUnconfirmed says why Now can't be relied on, but as what has passed at least;
	// nil: it always can. While it can't, rules about time are errors, and what ends at
	// some time is refused. Windows need no more than Now.
	TimeUnconfirmed func() error
	Log             *slog.Logger
}

// Service signs. It is safe for concurrent use.
type Service struct {
	cfg       Config
	authority Authority
	vault     *vault.Vault
	journal   *journal.Journal
	log       *slog.Logger
	now       func() time.Time
	// slots bounds running signatures, queue those that run or wait.
	slots, queue chan struct{}
	// mu guards closed and pending: requests under way, by organization and request id.
	mu      sync.Mutex
	pending map[requestKey]chan struct{}
	closed  bool
	// underWay counts requests in steps 7 to 10; Close waits for them.
	underWay sync.WaitGroup
	// testOnlyBeforeRelease runs at step 9 before the last check; tests set it.
	testOnlyBeforeRelease func()
	// testOnlyBeforeApproval runs between steps 6 and 7; tests set it.
	testOnlyBeforeApproval func()
}

type requestKey struct{ organization, id string }

// New returns a service over parts that are open and outlive it.
func New(cfg Config) *Service {
	if cfg.Timeout == 0 {
		cfg.Timeout = 20 * time.Second
	}
	if cfg.MaxConcurrent == 0 {
		cfg.MaxConcurrent = 8
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.TimeUnconfirmed == nil {
		cfg.TimeUnconfirmed = func() error { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{
		cfg: cfg, authority: cfg.Authority, vault: cfg.Vault, journal: cfg.Journal, log: cfg.Log, now: cfg.Now,
		slots: make(chan struct{}, cfg.MaxConcurrent), queue: make(chan struct{}, 3*cfg.MaxConcurrent),
		pending: map[requestKey]chan struct{}{},
	}
}

// Presignatures are those that this service takes; nil without.
func (s *Service) Presignatures() *Presignatures { return s.cfg.Presignatures }

// Close ends step 7 for everybody, and waits until every request that was
// approved has its outcome journaled. What is asked after it gets [vault.ErrSealed].
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.underWay.Wait()
}

// begin counts one request that may become an approval.
func (s *Service) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("approving after Close: %w", vault.ErrSealed)
	}
	s.underWay.Add(1)
	return nil
}

// Request is one call of SigningService.Sign as it came in.
type Request struct {
	// ID is the caller's id, already of the right form.
	ID       string
	WalletID string
	// Kind and Payload are what to sign. KindRawDigest is always refused.
	Kind    chains.Kind
	Payload []byte
	// APIKey is lent for the call; nil when the request was stamped, or its party has a
	// share of the wallet's root set.
	APIKey []byte
	// Organization is the one that the stamps name, Stamps are the keys of those that
	// were verified; both empty with an API key.
	Organization string
	Stamps       []credential.PublicKey
	// Method and Caller are for the journal.
	Method string
	Caller journal.Caller
	// ApprovalTime is how long people may take to approve it, where a policy asks for
	// that; zero is DefaultApprovalTime.
	ApprovalTime time.Duration
	// Vendor is the request to another vendor that is to be stamped: Kind and Payload are
	// what it asks to sign, and are found in step 5. nil: a signature is asked for.
	Vendor *VendorBody
	// bodyAt is the time that Vendor says.
	bodyAt time.Time
	// Together is the process that plays parties of the wallet's set, if it opened the call.
	Together Together
	// Unit finds the caller's systemd unit, "" when that can't be determined; nil: it
	// can't. It is called when a policy reads it.
	Unit func() string
}

// KindRawDigest is a bare digest: nothing to decode, nothing to judge.
const KindRawDigest chains.Kind = "raw_digest"

// Result is a released signature.
type Result struct {
	// Signature is r ‖ s ‖ recovery id (65 bytes) or an Ed25519 signature (64 bytes).
	Signature []byte
	// Signed is the transaction ready to send, TransactionID its id on the chain.
	Signed        []byte
	TransactionID string
	// Stamp is what Signature came to, of a request for a stamp.
	Stamp   *VendorStamp
	Summary string
	// Rule is the id of the policy that allowed it.
	Rule string
	// Sequence is the journal entry that approved it.
	Sequence uint64
}

// maxMoves is how often step 7 may find the standing changed before it gives up.
const maxMoves = 3

// Sign runs steps 3 to 10; steps 1 and 2 are the server's. Its errors are
// *refusal.Error for everything a caller may know. A signature it returns is in
// the journal, fsynced, and asking again with the same id returns the same bytes.
func (s *Service) Sign(ctx context.Context, r Request) (*Result, error) {
	for range maxMoves {
		// Step 3: authenticate the wallet API key, find the users who stamped, or the party
		// elsewhere whose pinned key the server saw.
		st, err := s.authenticate(r)
		if err != nil {
			return nil, err
		}
		// Step 4: the standing must allow signing now; a stored answer comes only after that.
		if err := s.mayServe(st, s.now()); err != nil {
			return nil, s.refuse(ctx, r, st, err)
		}
		result, err := s.sign(ctx, r, st)
		if !errors.Is(err, errMoved) {
			return result, err
		}
	}
	return nil, refusal.New(refusal.RateLimited, "the delegation is being changed; ask again")
}

// sign waits for the request's turn, holds it whatever happens, and runs steps 5 to 10.
func (s *Service) sign(ctx context.Context, r Request, st *Standing) (*Result, error) {
	done, err := s.takeTurn(ctx, st.Organization, r.ID)
	if err != nil {
		return nil, err
	}
	defer done()

	// Step 5: decode strictly.
	if r, err = s.openBody(r, st); err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}
	d, err := decode(r, st)
	if err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}
	if err := checkOffer(r, st, d); err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}
	prior, err := s.prior(r, st, d)
	if err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}
	if prior.answer != nil {
		// The turn may have been long in coming: step 4 once more.
		if err := s.stillServes(st); err != nil {
			return nil, s.refuse(ctx, r, st, err)
		}
		return s.finish(r, st, d, prior.answer, prior.rule, prior.sequence)
	}
	if err := s.freshBody(r); err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}

	// Step 6: judge by policy. Who has to wait waits before that: policies read the clock.
	leaveQueue, err := s.waitForSlot(ctx)
	if err != nil {
		return nil, err // not journaled: load that is shed must not become load on the disk
	}
	defer leaveQueue()
	people, err := s.consent(r, st, d)
	if err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}
	consent, void := people.counting(st, prior, s.now())
	v, err := s.judge(r, st, d, prior, consent)
	if errors.Is(err, errWaits) {
		return nil, s.await(ctx, r, st, d, v.Decision, people, void) // its entry is the activity's
	}
	if err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}
	if s.testOnlyBeforeApproval != nil {
		s.testOnlyBeforeApproval()
	}

	// Step 7: in one transaction, look again, reserve, journal.
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.underWay.Done()
	a, err := s.approve(ctx, r, st, d, v, prior)
	if err != nil {
		return nil, s.refuse(ctx, r, st, err)
	}

	// Steps 8 to 10 go on when the caller hangs up: the outcome must be journaled.
	return s.release(context.WithoutCancel(ctx), a)
}

func (s *Service) authenticate(r Request) (*Standing, error) {
	if r.Together.Party != "" {
		return s.authority.AuthenticateParty(r.WalletID, r.Together.Party, r.APIKey)
	}
	if len(r.Stamps) > 0 {
		return s.authority.AuthenticateStamps(r.Organization, r.WalletID, r.Stamps)
	}
	return s.authority.Authenticate(r.WalletID, r.APIKey)
}

// mayServe is step 4.
func (s *Service) mayServe(st *Standing, now time.Time) error {
	if st.Ended != nil {
		return st.Ended
	}
	if err := s.cfg.TimeUnconfirmed(); err != nil && !st.ExpiresAt.IsZero() {
		return refusal.New(refusal.ClockUnconfirmed, "the delegation ends at some time, and %v", err)
	}
	if !st.ExpiresAt.IsZero() && !now.Before(st.ExpiresAt) {
		return refusal.New(refusal.DelegationExpired, "the delegation ended at %s", st.ExpiresAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// stillServes is step 4 again, on what is true now: errMoved when st is not that any more.
func (s *Service) stillServes(st *Standing) error {
	now, err := s.authority.Current(st)
	if err != nil {
		return err
	}
	if now.moved(st) {
		return errMoved
	}
	return s.mayServe(now, s.now())
}

// takeTurn lets one call at a time work on a request id. A second one waits for
// the first and then finds its stored answer.
func (s *Service) takeTurn(ctx context.Context, org, id string) (done func(), err error) {
	k := requestKey{org, id}
	for {
		s.mu.Lock()
		other, busy := s.pending[k]
		if !busy {
			mine := make(chan struct{})
			s.pending[k] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.pending, k)
				s.mu.Unlock()
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// earlier is what the journal knows of a request id.
type earlier struct {
	// answer is the stored signature; nil when there is none.
	answer []byte
	// sequence is the approval that still stands; zero when there is none.
	sequence uint64
	rule     string
	// chargedAt is when the windows of its charges began; zero while they have not.
	chargedAt time.Time
}

// prior looks the request id up. The same id for other bytes is refused.
func (s *Service) prior(r Request, st *Standing, d *chains.Decoded) (earlier, error) {
	state, ok, err := s.journal.Request(st.Organization, r.ID)
	if err != nil {
		return earlier{}, fmt.Errorf("looking request %s up: %w", r.ID, err)
	}
	if !ok {
		return earlier{}, nil
	}
	if state.Method != r.Method || state.RequestHash != r.fingerprint(st) || state.Digest != digestOf(d) || state.Delegation != st.Delegation {
		return earlier{}, refusal.New(refusal.RequestIDReused, "this request_id was used for something else")
	}
	if state.Refunded {
		return earlier{}, nil // its charge was given back: it must be judged and reserved anew
	}
	return earlier{answer: state.Answer, sequence: state.ApprovedSeq, rule: state.Rule, chargedAt: state.ChargedAt}, nil
}

// fingerprint binds a request id to what was asked: wallet, kind, payload and a
// vendor's body, and for a stamped one who asked.
func (r Request) fingerprint(st *Standing) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%d:%s%d:", len(r.WalletID), r.WalletID, len(r.Kind), r.Kind, len(r.Payload))
	if len(st.Stamps) > 0 {
		for _, u := range st.Approvers {
			fmt.Fprintf(h, "%d:%s", len(u.ID), u.ID)
		}
		h.Write([]byte{0})
	}
	if r.Vendor != nil {
		sum := r.Vendor.hash()
		h.Write(sum[:])
	}
	h.Write(r.Payload)
	return hex.EncodeToString(h.Sum(nil))
}

// waitForSlot bounds how many signatures run and how many wait.
func (s *Service) waitForSlot(ctx context.Context) (leave func(), err error) {
	select {
	case s.queue <- struct{}{}:
	default:
		e := refusal.New(refusal.RateLimited, "too many signatures are waiting")
		e.After = time.Second
		return nil, e
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots; <-s.queue }, nil
	case <-ctx.Done():
		<-s.queue
		return nil, context.Cause(ctx)
	}
}

// refuse journals a refusal of an authenticated request, while its key's budget of
// such entries lasts. The refusal stands even if it can't be journaled.
func (s *Service) refuse(ctx context.Context, r Request, st *Standing, cause error) error {
	var no *refusal.Error
	if !errors.As(cause, &no) {
		return cause // storage or time, not a decision
	}
	s.log.InfoContext(ctx, "refused", "wallet", st.Wallet.ID, "delegation", st.Delegation, "request", r.ID, "reason", string(no.Reason), "rule", no.Details["rule"])
	if s.cfg.Refusals != nil && !s.cfg.Refusals.Spend(st.Credentials[0].ID, string(no.Reason)) {
		return cause
	}
	e := s.entry(journal.KindRefused, r, st)
	e.Outcome, e.Rule, e.Reason = string(no.Reason), no.Details["rule"], no.Message
	if no.Reason == refusal.PolicyDenied || no.Reason == refusal.LimitExceeded {
		e.Asked = asked(r, st.Wallet)
	}
	err := s.vault.Update(context.WithoutCancel(ctx), func(tx *vault.Tx) error {
		_, err := s.journal.Append(tx, e)
		return err
	})
	if err != nil {
		s.log.ErrorContext(ctx, "journaling a refusal", "error", err)
	}
	return cause
}

// entry fills in what every entry of a request says.
func (s *Service) entry(kind journal.Kind, r Request, st *Standing) journal.Entry {
	caller := r.Caller
	e := journal.Entry{
		Kind: kind, Method: r.Method, Organization: st.Organization, RequestID: r.ID, RequestHash: r.fingerprint(st),
		Caller: &caller, Credentials: st.credentialIDs(), User: st.DelegatedUser,
		Wallet: st.Wallet.ID, Delegation: st.Delegation, ShareSet: st.Set.ID,
	}
	noteBody(&e, r, st)
	return e
}

// asked is what the policies judged, for those who want to know what others would
// have said; nil for a payload that is too long to keep.
func asked(r Request, w WalletInfo) *journal.Asked {
	if len(r.Payload) > journal.MaxAsked {
		return nil
	}
	return &journal.Asked{Kind: string(r.Kind), Chain: w.Chain, Address: w.Address, Payload: r.Payload}
}

func hexOf(sum [32]byte) string { return hex.EncodeToString(sum[:]) }

// digestOf names what is signed: the secp256k1 digest, or SHA-256 of the Ed25519 message.
func digestOf(d *chains.Decoded) string {
	if d.Sign.Scheme == chains.EdDSAEd25519 {
		sum := sha256.Sum256(d.Sign.Message)
		return hex.EncodeToString(sum[:])
	}
	return hex.EncodeToString(d.Sign.Digest[:])
}
