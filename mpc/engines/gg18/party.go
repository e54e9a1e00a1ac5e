package gg18

import (
	"crypto/elliptic"
	"errors"
	"fmt"
	"math/big"

	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/mpc"
)

// partyKey is the x coordinate of a member's share. Keys of different sets differ,
// so the committees of a reshare are disjoint.
func partyKey(ec elliptic.Curve, m mpc.Member) *big.Int {
	h := m.Hash()
	k := new(big.Int).SetBytes(h[:])
	return k.Mod(k, ec.Params().N)
}

// roster maps between members and tss-lib's party ids, for one party of one
// ceremony; nothing in it is shared with another goroutine.
type roster struct {
	ids    map[mpc.Member]*tss.PartyID
	byKey  map[string]mpc.Member
	groups [][]*tss.PartyID
}

// newRoster gives ids to one group of members, or to two disjoint groups for a
// reshare. Keys that are zero or collide would give away the secret.
func newRoster(ec elliptic.Curve, groups ...[]mpc.Member) (*roster, error) {
	r := &roster{ids: map[mpc.Member]*tss.PartyID{}, byKey: map[string]mpc.Member{}}
	for _, g := range groups {
		var unsorted tss.UnSortedPartyIDs
		for _, m := range g {
			k := partyKey(ec, m)
			if _, dup := r.byKey[string(k.Bytes())]; dup || k.Sign() == 0 {
				return nil, fmt.Errorf("party key of %s is zero or taken", m)
			}
			id := tss.NewPartyID(m.String(), string(m.Party), k)
			r.ids[m], r.byKey[string(id.Key)] = id, m
			unsorted = append(unsorted, id)
		}
		r.groups = append(r.groups, tss.SortPartyIDs(unsorted)) // sets the indexes
	}
	return r, nil
}

// context returns the peer context of group i.
func (r *roster) context(i int) *tss.PeerContext { return tss.NewPeerContext(r.groups[i]) }

func (r *roster) self(m mpc.Member) (*tss.PartyID, error) {
	if id := r.ids[m]; id != nil {
		return id, nil
	}
	return nil, fmt.Errorf("%s is not of the committee", m)
}

func (r *roster) members(ids []*tss.PartyID) []mpc.Member {
	var ms []mpc.Member
	for _, id := range ids {
		if id == nil {
			continue
		}
		if m, ok := r.byKey[string(id.Key)]; ok {
			ms = append(ms, m)
		}
	}
	return ms
}

// params returns tss-lib's parameters for a group; its threshold is the degree
// of the polynomial, one less than the number of parties that are needed.
func (r *roster) params(ec elliptic.Curve, self mpc.Member, threshold int) (*tss.Parameters, error) {
	id, err := r.self(self)
	if err != nil {
		return nil, err
	}
	return tss.NewParameters(ec, r.context(0), id, len(r.groups[0]), threshold-1), nil
}

func reshareParams(ec elliptic.Curve, p mpc.ReshareParams) (*roster, *tss.ReSharingParameters, error) {
	if len(p.Quorum) < p.From.Threshold {
		return nil, nil, errors.New("quorum is below the threshold")
	}
	r, err := newRoster(ec, quorumMembers(p.From, p.Quorum), p.To.Members())
	if err != nil {
		return nil, nil, err
	}
	id, err := r.self(p.Self)
	if err != nil {
		return nil, nil, err
	}
	return r, tss.NewReSharingParameters(ec, r.context(0), r.context(1), id,
		len(p.Quorum), p.From.Threshold-1, len(p.To.Parties), p.To.Threshold-1), nil
}

func quorumMembers(c mpc.Committee, quorum []mpc.Party) []mpc.Member {
	c.Parties = quorum
	return c.Members()
}
