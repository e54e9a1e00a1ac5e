package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/holiman/uint256"
)

// Kind says what an entry tells of; a closed list.
type Kind string

// The kinds.
const (
	KindGenesis        Kind = "genesis"         // first entry: who this appliance and its operators are
	KindAct            Kind = "act"             // an administrative act was done; with a request id, its answer is kept
	KindApproved       Kind = "approved"        // a request may be signed; its charges and replay keys hold from here on
	KindSigned         Kind = "signed"          // ends an approval: the signature exists
	KindFailed         Kind = "failed"          // ends an approval: no signature; the charge stands unless refunded
	KindOutcomeUnknown Kind = "outcome_unknown" // an approval found without an end after a crash; the charge stands
	KindActivity       Kind = "activity"        // a request waits for people's approval: the activity they are shown
	KindRefused        Kind = "refused"         // a request was refused; audit only
	KindRefusals       Kind = "refusals"        // how many requests were refused, and which of them have no entry
	KindCheckpoint     Kind = "checkpoint"      // the device's signature over the chain
	KindArchived       Kind = "archived"        // entries are in a segment file outside the store, fsynced
	KindSnapshot       Kind = "snapshot"        // the folds are in the vault's records; the next start begins here
	KindPruned         Kind = "pruned"          // archived entries are no longer in the store
	KindLease          Kind = "lease"           // what may be spent before the anchor moves again; see lease.go
	KindRecords        Kind = "records"         // what an update changed of the vault's records; see records.go
	KindEpoch          Kind = "epoch"           // the anchor moves with this commit
	KindStarted        Kind = "started"         // the daemon started
	KindStopped        Kind = "stopped"         // the daemon stopped in order
)

var kinds = []Kind{
	KindGenesis, KindAct, KindApproved, KindSigned, KindFailed, KindOutcomeUnknown,
	KindActivity, KindRefused, KindRefusals, KindCheckpoint, KindArchived, KindSnapshot, KindPruned, KindLease, KindRecords, KindEpoch, KindStarted, KindStopped,
}

// upkeep says whether an entry is the journal's own work on itself: alone it is no
// reason for a checkpoint or a segment.
func (k Kind) upkeep() bool {
	return k == KindCheckpoint || k == KindArchived || k == KindSnapshot || k == KindPruned
}

// MaxEntry is the longest entry in bytes of JSON.
const MaxEntry = 1 << 20

// Caller is the peer of the unix socket, as the kernel told it.
type Caller struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	PID int32  `json:"pid"`
}

// Charge is one thing an approved request spends.
type Charge struct {
	Chain string `json:"chain"` // CAIP-2
	Asset string `json:"asset"` // CAIP-19
	// Amount is a decimal number below 2^256 in the asset's smallest unit, without
	// leading zeros; empty when Unbounded.
	Amount    string `json:"amount,omitempty"`
	Unbounded bool   `json:"unbounded,omitempty"`
	What      string `json:"what"` // "transfer" or "fee"
	To        string `json:"to,omitempty"`
}

// MaxAsked bounds the payload that an entry keeps, in bytes: all of a Solana
// transaction's, and nearly all of EVM's. What is longer is not kept.
const MaxAsked = 4 << 10

// Asked is what policies judged: a payload of a kind, for an account on a chain.
type Asked struct {
	Kind    string `json:"kind"`    // as in requests: "evm.transaction"
	Chain   string `json:"chain"`   // CAIP-2, of the wallet
	Address string `json:"address"` // of the wallet, as its chain spells it
	Payload []byte `json:"payload"` // base64 in JSON
}

// Entry is one fact that outlives a crash. It holds no secret. On disk it is
// one flat JSON object with exactly these names; what is empty is absent.
type Entry struct {
	Seq    uint64 `json:"seq"`     // assigned by Append: 1, 2, 3, …
	TimeMS int64  `json:"time_ms"` // assigned by Append: Unix milliseconds, never smaller than the entry's before
	Kind   Kind   `json:"kind"`

	Method       string   `json:"method,omitempty"`       // full gRPC method
	Organization string   `json:"organization,omitempty"` // id
	RequestID    string   `json:"request_id,omitempty"`   // the caller's; unique within its organization
	RequestHash  string   `json:"request_hash,omitempty"` // hex SHA-256 of the received message
	Caller       *Caller  `json:"caller,omitempty"`
	Credentials  []string `json:"credentials,omitempty"` // ids of what authenticated the request
	User         string   `json:"user,omitempty"`
	Wallet       string   `json:"wallet,omitempty"`
	Delegation   string   `json:"delegation,omitempty"`
	ShareSet     string   `json:"share_set,omitempty"`
	Digest       string   `json:"digest,omitempty"`     // hex: what is signed, or its SHA-256 where the scheme signs messages
	PolicySet    string   `json:"policy_set,omitempty"` // hex hash of the policies that judged
	Outcome      string   `json:"outcome,omitempty"`
	Rule         string   `json:"rule,omitempty"` // the rule that decided
	Reason       string   `json:"reason,omitempty"`
	Trace        []string `json:"trace,omitempty"`

	Asked *Asked `json:"asked,omitempty"` // of an approval, an activity, or a refusal by policy or limit

	Charges    []Charge  `json:"charges,omitempty"`     // of an approval
	ReplayKeys []string  `json:"replay_keys,omitempty"` // of an approval: must not be signed with another Digest
	Replaces   *Replaced `json:"replaces,omitempty"`    // of an approval: the one whose place it takes under a replay key
	Leases     []Lease   `json:"leases,omitempty"`      // of a lease

	ApprovedSeq   uint64 `json:"approved_seq,omitempty"` // of signed, failed, outcome_unknown: the approval that ends
	SignatureHash string `json:"signature_hash,omitempty"`
	// Answer is what the same request gets when it is asked again; base64 in JSON.
	Answer []byte            `json:"answer,omitempty"`
	Facts  map[string]string `json:"facts,omitempty"`
	// Destroyed are the secrets that an act removed: type, a space, id.
	Destroyed []string `json:"destroyed,omitempty"`
	// Records are what the update changed of the vault's records, sealed; base64 in JSON.
	Records []byte `json:"records,omitempty"`

	// Urgent asks for a checkpoint, and where there is an archive for a segment, as
	// soon as the entry is on disk: a revocation, a pause, a change of who may do what.
	// An act with a request id is urgent in any case. It is not part of the entry.
	Urgent bool `json:"-"`
}

// factRefund marks a failed entry whose charge is taken back.
const factRefund = "refund"

// Of an approval: that its charges are also summed by its rule.
const (
	factSum   = "sum"
	sumByRule = "rule"
)

// Note adds a fact to those that the entry has.
func (e *Entry) Note(name, value string) {
	if e.Facts == nil {
		e.Facts = make(map[string]string)
	}
	e.Facts[name] = value
}

// SumByRule has the charges of an approval summed by its rule, too: those of an order
// are bounded together.
func (e *Entry) SumByRule() {
	e.Note(factSum, sumByRule)
}

// Refund marks a failed entry: it is provable that our last share was never
// sent, so the approval's charges and replay keys are released.
func (e *Entry) Refund() {
	e.Note(factRefund, "true")
}

// Refunded says whether the entry gives its approval's charges back.
func (e *Entry) Refunded() bool { return e.Kind == KindFailed && e.Facts[factRefund] == "true" }

// onDisk is the JSON object of an entry.
type onDisk struct {
	V int `json:"v"`
	Entry
}

const entryVersion = 1

// encode is the exact form that is hashed and stored.
func (e *Entry) encode() ([]byte, error) {
	b, err := json.Marshal(onDisk{entryVersion, *e})
	if err != nil {
		return nil, fmt.Errorf("encoding an entry: %w", err)
	}
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("encoding an entry: %d bytes, at most %d", len(b), MaxEntry)
	}
	return b, nil
}

// decodeEntry reads exactly what encode writes: unknown, doubled, reordered or
// differently spelled members are refused.
func decodeEntry(b []byte) (Entry, error) {
	if len(b) > MaxEntry {
		return Entry{}, fmt.Errorf("decoding an entry: %d bytes, at most %d", len(b), MaxEntry)
	}
	var d onDisk
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Entry{}, fmt.Errorf("decoding an entry: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Entry{}, errors.New("decoding an entry: something follows the object")
	}
	if d.V != entryVersion {
		return Entry{}, fmt.Errorf("decoding an entry: version %d is not known to this build", d.V)
	}
	if err := d.check(); err != nil {
		return Entry{}, fmt.Errorf("decoding an entry: %w", err)
	}
	again, err := d.encode()
	if err != nil {
		return Entry{}, err
	}
	if !bytes.Equal(again, b) {
		return Entry{}, errors.New("decoding an entry: not in the canonical form")
	}
	return d.Entry, nil
}

// check refuses an entry whose members don't fit its kind.
func (e *Entry) check() error {
	if !slices.Contains(kinds, e.Kind) {
		return fmt.Errorf("kind %q is not known", e.Kind)
	}
	if (e.Seq == 1) != (e.Kind == KindGenesis) {
		return fmt.Errorf("entry %d of kind %s: the first entry, and only it, is the genesis", e.Seq, e.Kind)
	}
	if e.TimeMS < 0 {
		return fmt.Errorf("time %d is before 1970", e.TimeMS)
	}
	if err := e.checkText(); err != nil {
		return err
	}
	for name, h := range map[string]string{
		"request_hash": e.RequestHash, "digest": e.Digest, "policy_set": e.PolicySet, "signature_hash": e.SignatureHash,
	} {
		if h != "" && !isHash(h) {
			return fmt.Errorf("%s is not 64 lower-case hex digits", name)
		}
	}
	if a := e.Asked; a != nil && (e.Kind != KindApproved && e.Kind != KindActivity && e.Kind != KindRefused || a.Kind == "" || a.Chain == "" || a.Address == "" || len(a.Payload) > MaxAsked) {
		return fmt.Errorf("kind %s asks for a %q payload of %d bytes", e.Kind, a.Kind, len(a.Payload))
	}
	if e.Kind != KindApproved && (len(e.Charges) > 0 || len(e.ReplayKeys) > 0 || e.Replaces != nil) {
		return fmt.Errorf("kind %s has charges or replay keys, only an approval may", e.Kind)
	}
	if len(e.Records) > 0 && e.Kind != KindRecords && e.Kind != KindAct {
		return fmt.Errorf("kind %s has changed records", e.Kind)
	}
	if len(e.Destroyed) > 0 && e.Kind != KindAct {
		return fmt.Errorf("kind %s has destroyed something", e.Kind)
	}
	if err := e.checkLeases(); err != nil {
		return err
	}
	switch e.Kind {
	case KindApproved:
		if e.Organization == "" || e.RequestID == "" || e.RequestHash == "" || e.Digest == "" {
			return errors.New("an approval needs organization, request id, request hash and digest")
		}
		if _, err := parseCharges(e.Charges); err != nil {
			return err
		}
		if slices.Contains(e.ReplayKeys, "") {
			return errors.New("a replay key is empty")
		}
		if err := e.Replaces.check(); err != nil {
			return err
		}
	case KindRecords:
		if len(e.Records) == 0 {
			return errors.New("an entry of changed records has none")
		}
	case KindAct:
		if e.RequestID != "" && e.RequestHash == "" {
			return errors.New("an act with a request id needs the request's hash")
		}
	}
	ends := e.Kind == KindSigned || e.Kind == KindFailed || e.Kind == KindOutcomeUnknown
	if ends != (e.ApprovedSeq != 0) {
		return fmt.Errorf("kind %s and approved_seq %d don't fit", e.Kind, e.ApprovedSeq)
	}
	return nil
}

// checkText refuses what JSON would silently change.
func (e *Entry) checkText() error {
	ok := true
	texts := func(ss ...string) {
		for _, s := range ss {
			ok = ok && utf8.ValidString(s)
		}
	}
	texts(e.Method, e.Organization, e.RequestID, e.User, e.Wallet, e.Delegation, e.ShareSet, e.Outcome, e.Rule, e.Reason)
	texts(e.Credentials...)
	if e.Asked != nil {
		texts(e.Asked.Kind, e.Asked.Chain, e.Asked.Address)
	}
	texts(e.Trace...)
	texts(e.Destroyed...)
	texts(e.ReplayKeys...)
	charges := [][]Charge{e.Charges}
	if e.Replaces != nil {
		charges = append(charges, e.Replaces.Charges...)
	}
	for _, list := range charges {
		for _, c := range list {
			texts(c.Chain, c.Asset, c.What, c.To)
		}
	}
	for _, l := range e.Leases {
		texts(l.Of, l.ID, l.Asset)
	}
	for k, v := range e.Facts {
		texts(k, v)
	}
	if !ok {
		return errors.New("text is not UTF-8")
	}
	return nil
}

func isHash(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// parseCharges gives the amounts; an unbounded charge has zero.
func parseCharges(cs []Charge) ([]uint256.Int, error) {
	if len(cs) == 0 {
		return nil, nil
	}
	amounts := make([]uint256.Int, len(cs))
	for i, c := range cs {
		if c.Asset == "" || c.What == "" {
			return nil, fmt.Errorf("charge %d has no asset or doesn't say what for", i)
		}
		if c.Unbounded {
			if c.Amount != "" {
				return nil, fmt.Errorf("charge %d is unbounded and has an amount", i)
			}
			continue
		}
		if err := amounts[i].SetFromDecimal(c.Amount); err != nil || amounts[i].Dec() != c.Amount {
			return nil, fmt.Errorf("charge %d: %q is not a decimal number below 2^256", i, c.Amount)
		}
	}
	return amounts, nil
}
