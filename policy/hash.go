package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"
)

// The canonical encoding of a set, which is hashed and never stored:
//
//	text(domain) text(LanguageVersion)
//	number(policies) { text(id) text(name) text(effect) text(condition)
//	  text(consensus) text(time) text(lang; "/partial_lists", then "/requester_abstains" behind it with those switches) text(scope delegation) instant(not after)
//	  flag(one time) flag(replace) }
//	number(limits) { text(id) text(name) text(asset) text(max, decimal) number(window in ns)
//	  text(delegation) text(per) number(max count) number(decimals)
//	  flag(include fees) flag(any amount) flag(control) }
//
// text is its length as number, then its bytes; number is 8 bytes, big-endian;
// flag is 0 or 1 as number; instant is 0 for none, else 1, seconds since 1970 and
// nanoseconds as numbers.

const hashDomain = "sigild/policy/set/v2"

type encoder struct{ h hash.Hash }

func (e encoder) number(n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	e.h.Write(b[:])
}

func (e encoder) text(s string) {
	e.number(uint64(len(s)))
	e.h.Write([]byte(s))
}

func (e encoder) flag(yes bool) {
	if yes {
		e.number(1)
	} else {
		e.number(0)
	}
}

func (e encoder) instant(t time.Time) {
	if t.IsZero() {
		e.number(0)
		return
	}
	e.number(1)
	e.number(uint64(t.Unix()))
	e.number(uint64(t.Nanosecond()))
}

// hashSet takes both lists ordered by id.
func hashSet(policies []Policy, limits []Limit) [32]byte {
	e := encoder{sha256.New()}
	e.text(hashDomain)
	e.text(LanguageVersion)
	e.number(uint64(len(policies)))
	for i := range policies {
		p := &policies[i]
		for _, s := range [...]string{p.ID, p.Name, p.Effect.String(), p.Condition, p.Consensus, p.Time, p.dialect(), p.Scope.Delegation} {
			e.text(s)
		}
		e.instant(p.NotAfter)
		e.flag(p.OneTime)
		e.flag(p.Replace)
	}
	e.number(uint64(len(limits)))
	for i := range limits {
		l := &limits[i]
		for _, s := range [...]string{l.ID, l.Name, l.Asset, l.Max.Dec()} {
			e.text(s)
		}
		e.number(uint64(l.Window))
		e.text(l.Delegation)
		e.text(string(l.Per))
		e.number(l.MaxCount)
		e.number(uint64(l.Decimals))
		for _, flag := range [...]bool{l.IncludeFees, l.AnyAmount, l.Control} {
			e.flag(flag)
		}
	}
	return [32]byte(e.h.Sum(nil))
}
