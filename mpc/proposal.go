package mpc

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sigild/sigild/chains"
)

// The operations that can be proposed.
const (
	OpKeygen = "keygen"
	OpIssue  = "issue"
	OpRotate = "rotate"
	OpSign   = "sign"
)

const (
	proposalVersion = 1
	nonceBytes      = 32
)

// Proposal is what one process asks another to do together: the first frame of a
// joint ceremony. Whoever accepts has judged all of it, by its own policy. The
// session's id binds every byte of it. It holds no secret.
type Proposal struct {
	V int `json:"v"`
	// Nonce is 32 fresh bytes of the proposer.
	Nonce []byte `json:"nonce"`
	// Op is OpKeygen, OpIssue, OpRotate or OpSign.
	Op string `json:"op"`
	// Engine is the id of the engine that both must use.
	Engine string `json:"engine"`
	// Key, Wallet and Name are the proposer's names, for people.
	Key    string `json:"key"`
	Wallet string `json:"wallet,omitempty"`
	Name   string `json:"name,omitempty"`
	// Invitation is the acceptor's own name for what it waits for; "" for none.
	Invitation string `json:"invitation,omitempty"`
	// From is the set that signs, or that an issue comes from; nil for a keygen.
	From *ShareSet `json:"from,omitempty"`
	// To is the set to be made; nil for a signature. Of a keygen it has no public key yet.
	To *ShareSet `json:"to,omitempty"`
	// FromProposer and FromAcceptor play the parties of From that take part, ToProposer
	// and ToAcceptor those of To. Each is sorted.
	FromProposer []Party `json:"from_proposer,omitempty"`
	FromAcceptor []Party `json:"from_acceptor,omitempty"`
	ToProposer   []Party `json:"to_proposer,omitempty"`
	ToAcceptor   []Party `json:"to_acceptor,omitempty"`
	// ChainCode is the key's, for an acceptor of an issue that has no share of From; nil
	// when it has, and for keys that nothing is derived from.
	ChainCode []byte `json:"chain_code,omitempty"`
	// Chain, Kind and Payload are what a signature is for; the acceptor decodes them
	// itself. Digest is [InputDigest] of what the proposer made of them.
	Chain   string      `json:"chain,omitempty"`
	Kind    chains.Kind `json:"kind,omitempty"`
	Payload []byte      `json:"payload,omitempty"`
	Digest  []byte      `json:"digest,omitempty"`
	Path    []uint32    `json:"path,omitempty"`
	// Decision names the proposer's own decision: its request id and journal entry, or
	// the ceremony.
	Decision string `json:"decision"`
}

// errProposal is inside every refusal of a proposal's form.
var errProposal = errors.New("proposal refused")

func decodeProposal(b []byte) (Proposal, error) {
	var p Proposal
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return Proposal{}, fmt.Errorf("%w: not a JSON object of the right form", errProposal)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Proposal{}, fmt.Errorf("%w: bytes follow it", errProposal)
	}
	// One encoding: what the decoder reads generously, such as a member twice or in
	// other letters, can't mean two things.
	if again, err := json.Marshal(p); err != nil || !bytes.Equal(again, b) {
		return Proposal{}, fmt.Errorf("%w: not in its one encoding", errProposal)
	}
	if err := p.check(); err != nil {
		return Proposal{}, fmt.Errorf("%w: %w", errProposal, err)
	}
	return p, nil
}

// check says whether the proposal is whole and agrees with itself.
func (p Proposal) check() error {
	switch {
	case p.V != proposalVersion:
		return fmt.Errorf("version %d, want %d", p.V, proposalVersion)
	case len(p.Nonce) != nonceBytes:
		return fmt.Errorf("nonce of %d bytes", len(p.Nonce))
	case checkID(p.Key) != nil || checkID(p.Decision) != nil || p.Wallet != "" && checkID(p.Wallet) != nil || len(p.Invitation) > maxID || len(p.Name) > maxID:
		return errors.New("key, wallet, name or decision has no form")
	}
	switch p.Op {
	case OpKeygen:
		if p.From != nil || p.To == nil || p.signs() {
			return errors.New("a keygen has a new set and nothing else")
		}
		keygen := *p.To
		if len(keygen.PublicKey) != 0 {
			return errors.New("a keygen knows no public key")
		}
		keygen.PublicKey = make([]byte, 33) // the one thing it lacks
		if keygen.Scheme == chains.EdDSAEd25519 {
			keygen.PublicKey = keygen.PublicKey[:32]
		}
		if err := keygen.Validate(); err != nil {
			return err
		}
	case OpIssue, OpRotate:
		if p.From == nil || p.To == nil || p.signs() {
			return errors.New("an issue has two sets and nothing else")
		}
		if err := errors.Join(p.From.Validate(), p.To.Validate()); err != nil {
			return err
		}
		if p.From.ID == p.To.ID || p.From.Scheme != p.To.Scheme || !bytes.Equal(p.From.PublicKey, p.To.PublicKey) {
			return errors.New("the two sets are not two sets of one key")
		}
	case OpSign:
		if p.From == nil || p.To != nil || !p.signs() {
			return errors.New("a signature has one set and a payload")
		}
		if err := p.From.Validate(); err != nil {
			return err
		}
		if len(p.Digest) != sha256.Size || len(p.Path) > maxPath {
			return errors.New("digest or path has no form")
		}
	default:
		return fmt.Errorf("operation %.20q is not known", p.Op)
	}
	if len(p.ChainCode) > 0 && (!p.reshares() || len(p.FromAcceptor) > 0 || len(p.ChainCode) != chainCodeBytes || p.To.Scheme != chains.ECDSASecp256k1) {
		return errors.New("a chain code where none belongs")
	}
	if err := split(p.From, p.FromProposer, p.FromAcceptor, false); err != nil {
		return err
	}
	if err := split(p.To, p.ToProposer, p.ToAcceptor, true); err != nil {
		return err
	}
	if len(p.FromProposer)+len(p.ToProposer) == 0 || len(p.FromAcceptor)+len(p.ToAcceptor) == 0 {
		return errors.New("one side plays no party")
	}
	return nil
}

// reshares says whether the operation makes a set from another.
func (p Proposal) reshares() bool { return p.Op == OpIssue || p.Op == OpRotate }

func (p Proposal) signs() bool {
	return p.Kind != "" || len(p.Payload) > 0 || len(p.Digest) > 0
}

// split checks who plays the parties of a set: all of a new one, enough of another.
func split(set *ShareSet, proposer, acceptor []Party, all bool) error {
	both := slices.Concat(proposer, acceptor)
	if set == nil {
		if len(both) > 0 {
			return errors.New("parties of no set")
		}
		return nil
	}
	if !slices.IsSorted(proposer) || !slices.IsSorted(acceptor) {
		return errors.New("parties are not sorted")
	}
	slices.Sort(both)
	if len(slices.Compact(slices.Clone(both))) != len(both) {
		return errors.New("a party is played twice")
	}
	for _, p := range both {
		if !slices.Contains(set.Parties, p) {
			return fmt.Errorf("party %.20q is not of the set", p)
		}
	}
	if len(both) < set.Threshold || all && len(both) != len(set.Parties) {
		return fmt.Errorf("%d parties of set %s take part, which has %d and needs %d", len(both), set.ID, len(set.Parties), set.Threshold)
	}
	return nil
}

// InputDigest is what a proposal says of an input: the digest of an ECDSA input,
// SHA-256 of an Ed25519 message.
func InputDigest(in chains.SignInput) [32]byte { return inputDigest(in) }

// sessionOf is the id of the session that a proposal and an acceptance make.
func sessionOf(proposal, acceptance []byte) [32]byte {
	h := sha256.New()
	for _, f := range [][]byte{[]byte("sigild/mpc/joint/v1"), proposal, acceptance} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(f)))
		h.Write(f)
	}
	return [32]byte(h.Sum(nil))
}
