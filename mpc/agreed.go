package mpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/chains"
)

// This file holds a request to what both processes agreed on. A nil Joint is a
// ceremony whose parties are all here, which nobody else has to agree on.

// errAgreed: a ceremony is asked for that is not the one both sides agreed on. It is
// a mistake of ours, not of the other side.
var errAgreed = errors.New("not what both sides agreed on")

// agreed checks a request against the proposal; sets that the operation has not are zero.
func (j *Joint) agreed(op, engine string, from ShareSet, lent []Party, to ShareSet) error {
	if j == nil {
		return nil
	}
	p := j.proposal
	same := func(agreed *ShareSet, asked ShareSet) bool {
		return agreed == nil && asked.ID == "" || agreed != nil && agreed.equal(asked)
	}
	switch {
	case p.Op != op:
		return fmt.Errorf("%w: %s, not %s", errAgreed, p.Op, op)
	case p.Engine != engine:
		return fmt.Errorf("%w: engine %s, not %s", errAgreed, p.Engine, engine)
	case !same(p.From, from) || !same(p.To, to):
		return fmt.Errorf("%w: another set", errAgreed)
	case op != OpKeygen && !slices.Equal(j.here(from.ID), lent):
		return fmt.Errorf("%w: shares of %v are lent for %v", errAgreed, lent, j.here(from.ID))
	}
	return nil
}

// agreedInput checks what is to be signed against the proposal.
func (j *Joint) agreedInput(in chains.SignInput, path []uint32) error {
	if j == nil {
		return nil
	}
	digest := inputDigest(in)
	if !bytes.Equal(j.proposal.Digest, digest[:]) || !slices.Equal(j.proposal.Path, path) {
		return fmt.Errorf("%w: another input or path", errAgreed)
	}
	return nil
}

// partiesHere are the parties of a set that this process plays.
func (j *Joint) partiesHere(set ShareSet) []Party {
	if j == nil {
		return set.Parties
	}
	return j.here(set.ID)
}

// notHere are those of some parties that another process plays.
func (j *Joint) notHere(set ShareSet, some []Party) []Party {
	here := j.partiesHere(set)
	return slices.DeleteFunc(slices.Clone(some), func(p Party) bool { return slices.Contains(here, p) })
}

// elsewhere are the parties of a set that another process plays in this session.
func (j *Joint) elsewhere(set ShareSet) []Party {
	if j == nil {
		return nil
	}
	return j.there(set.ID)
}

// describe is what both sides must say alike of a set that they made.
func describe(set ShareSet, chainCode []byte) []byte {
	b, err := json.Marshal(set)
	if err != nil {
		panic(err) // a struct of texts and numbers
	}
	return append(b, chainCode...)
}
