package model

import "slices"

// Person is who has a key.
type Person string

// The people. Dana owns the wallets, Erin is another end user of the same
// organization; the bots are its delegated users. Gene is another organization's root,
// Otto and Olga are the appliance's operators, and nobody knows the stranger.
const (
	Rhea, Rolf, Ruth Person = "rhea", "rolf", "ruth"
	Dana             Person = "dana"
	DanaSecond       Person = "dana's second credential"
	Erin             Person = "erin"
	Bot0, Bot1       Person = "bot 0", "bot 1"
	Gene             Person = "gene"
	Otto, Olga       Person = "otto", "olga"
	Stranger         Person = "stranger"
)

// Who are those who stamp an act.
type Who string

// crowds are who stamps together. Two of the three root members are the quorum.
var crowds = map[Who][]Person{
	"the quorum":           {Rhea, Rolf},
	"the quorum with ruth": {Rhea, Ruth},
	"one root member":      {Rhea},
	"the owner":            {Dana},
	"the owner's second":   {DanaSecond},
	"another user":         {Erin},
	"a delegate":           {Bot0},
	"both delegates":       {Bot0, Bot1},
	"a delegate and rhea":  {Bot0, Rhea},
	"another root":         {Gene},
	"two operators":        {Otto, Olga},
	"one operator":         {Otto},
	"a stranger":           {Stranger},
	"nobody":               {},
}

// everybody has the names of crowds in one order.
var everybody = func() (all []Who) {
	for w := range crowds {
		all = append(all, w)
	}
	slices.Sort(all)
	return all
}()

// People are those who stamp.
func (w Who) People() []Person { return crowds[w] }

// Delegates reports whether only delegated users stamp.
func (w Who) Delegates() bool {
	return len(crowds[w]) > 0 && !slices.ContainsFunc(crowds[w], func(p Person) bool { return p != Bot0 && p != Bot1 })
}

// operators reports whether the stamps are the operators', which name no organization.
func (w Who) operators() bool { return slices.Contains(crowds[w], Otto) }

// Inside reports whether the stamps of an act name the organization that it is about.
func (a Act) Inside() bool { return !a.Foreign && !a.By.operators() }

// Above reports whether they name none, as the operators' do.
func (a Act) Above() bool { return !a.Foreign && a.By.operators() }

func (a Act) count(of ...Person) (n int) {
	for _, p := range of {
		if slices.Contains(crowds[a.By], p) {
			n++
		}
	}
	return n
}

// rootMembers counts the root members that stamp and are still of the root.
func (m *Model) rootMembers(a Act) int {
	if !m.ruthLeft {
		return a.count(Rhea, Rolf, Ruth)
	}
	return a.count(Rhea, Rolf)
}

// unknown reports whether an act needs stamps and carries one of a credential that is
// not registered with the organization it names, or not any more, or none at all, or
// stamps that name another organization than the act does.
func (m *Model) unknown(a Act) bool {
	whole := (a.Verb == Pause || a.Verb == Resume) && a.Scope == OfAppliance
	switch {
	case !a.stamped():
		return false
	case whole:
		return !a.Above()
	case !a.Inside():
		return true
	}
	gone := a.count(Stranger, Gene) > 0 || m.secondEnded && a.count(DanaSecond) > 0 || m.ruthLeft && a.count(Ruth) > 0 ||
		m.removed[0] && a.count(Bot0) > 0 || m.removed[1] && a.count(Bot1) > 0
	return gone || len(crowds[a.By]) == 0
}

func (m *Model) quorum(a Act) bool { return m.rootMembers(a) >= 2 }

// owner reports whether the owner of wallets stamps with a credential that lives.
func (m *Model) owner(a Act) bool {
	return a.count(Dana) > 0 || !m.secondEnded && a.count(DanaSecond) > 0
}

// member reports whether somebody stamps who may ask at all.
func (m *Model) member(a Act) bool { return m.rootMembers(a) > 0 || m.owner(a) || a.count(Erin) > 0 }
