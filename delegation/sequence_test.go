package delegation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// acted is what five hundred random acts must come to. It knows the rules, none of
// the code: who may, which ids are taken, what is pending or active.
type acted struct {
	done      map[string]request // by organization and request id
	users     map[string]int     // made, by organization
	orgs      int
	confirmed map[string]bool
	revoked   map[string]bool
}

// request is what an id was used for, and what it was answered.
type request struct {
	what   string
	answer any
}

// step is one random act: what it is, who stamps it for which organization.
type step struct {
	act            string
	id, org, about string // about is the subject or the name
	stampOrg       string
	by             []holder
}

func (s step) what() string { return fmt.Sprint(s.act, s.org, s.about) }

const pendings, actives = 4, 8

func randomStep(r *rand.Rand) step {
	s := step{id: fmt.Sprint("r", r.IntN(120)), org: site.acme}
	if r.IntN(5) == 0 {
		s.org = site.globex
	}
	all := append(append(append([]holder{site.dana.holder, site.erin.holder, site.gina.holder}, site.root...), site.globexRoot...), site.operators...)
	switch s.act = []string{"organization", "user", "user", "confirm", "confirm", "revoke", "revoke"}[r.IntN(7)]; s.act {
	case "organization":
		s.org, s.by, s.about = "", site.operators, fmt.Sprint("o", r.IntN(3))
	case "user":
		s.by, s.about = site.root, fmt.Sprint("u", r.IntN(3))
		if s.org == site.globex {
			s.by = site.globexRoot
		}
	case "confirm":
		s.by, s.about = []holder{site.dana.holder}, fmt.Sprint("wal_", r.IntN(pendings+1))
	case "revoke":
		s.by, s.about = []holder{site.dana.holder}, fmt.Sprint("dlg_", r.IntN(actives+1))
	}
	if r.IntN(3) == 0 { // somebody else, or fewer, or more
		s.by = nil
		for _, h := range all {
			if r.IntN(3) == 0 {
				s.by = append(s.by, h)
			}
		}
	}
	if s.stampOrg = s.org; r.IntN(10) == 0 {
		s.stampOrg = []string{"", site.acme, site.globex, "org_nowhere"}[r.IntN(4)]
	}
	return s
}

func count(by []holder, of ...holder) (n int) {
	for _, o := range of {
		for _, h := range by {
			if h.key == o.key {
				n++
				break
			}
		}
	}
	return n
}

// mayAct is who may do what, said once more.
func (s step) mayAct() refusal.Reason {
	if s.act == "organization" {
		if s.stampOrg != "" || count(s.by, site.operators...) < 2 {
			return refusal.QuorumMissing
		}
		return ""
	}
	if s.stampOrg != s.org {
		return refusal.NotFound
	}
	rootQuorum := count(s.by, site.root...) >= 2
	if s.org == site.globex {
		rootQuorum = count(s.by, site.globexRoot...) >= 1
	}
	owner := count(s.by, site.dana.holder) == 1
	exists := s.org == site.acme && s.about != "wal_0" && s.about != "dlg_0"
	switch {
	case s.act == "user" && !rootQuorum:
		return refusal.QuorumMissing
	case s.act != "user" && !exists:
		return refusal.NotFound
	case s.act == "confirm" && !owner, s.act == "revoke" && !owner && !rootQuorum:
		return refusal.QuorumMissing
	}
	return ""
}

// want is what a step must come to; the change it makes is taken when it is new.
func (m *acted) want(s step) (reason refusal.Reason, stored *request, change func(answer any)) {
	if no := s.mayAct(); no != "" {
		return no, nil, nil
	}
	k := s.org + "/" + s.id
	if prior, ok := m.done[k]; ok {
		if prior.what != s.what() {
			return refusal.RequestIDReused, nil, nil
		}
		return "", &prior, nil
	}
	if s.act == "confirm" && m.confirmed[s.about] {
		return refusal.NotActive, nil, nil
	}
	return "", nil, func(answer any) {
		m.done[k] = request{s.what(), answer}
		switch s.act {
		case "organization":
			m.orgs++
		case "user":
			m.users[s.org]++
		case "confirm":
			m.confirmed[s.about] = true
		case "revoke":
			m.revoked[s.about] = true
		}
	}
}

func (h *house) perform(s step) (any, error) {
	ctx := context.Background()
	actor := func(m any) Actor {
		a := stamped(s.stampOrg, m, s.by...)
		a.RequestHash = sha256.Sum256([]byte(s.what()))
		return a
	}
	switch s.act {
	case "organization":
		n := NewOrganization{RequestID: s.id, Name: s.about, Root: []NewCredential{site.root[0].NewCredential}, Quorum: 1}
		return h.CreateOrganization(ctx, actor(n), n)
	case "user":
		n := NewUser{RequestID: s.id, Organization: s.org, Name: s.about, Kind: DelegatedUser}
		return h.CreateUser(ctx, actor(n), n)
	case "confirm":
		sum := sha256.Sum256([]byte(s.about))
		n := NewReceipt{RequestID: s.id, Organization: s.org, Wallet: s.about, SHA256: sum[:]}
		w, err := h.ConfirmShare(ctx, actor(n), n)
		return w.Status, err
	}
	d, err := h.RevokeDelegation(ctx, actor(revocation{}), s.id, s.org, s.about)
	return d.Status, err
}

// agree compares the service with the model.
func (h *house) agree(m *acted) {
	h.t.Helper()
	users := map[string]int{}
	for _, u := range h.book.users {
		users[u.Organization]++
	}
	if users[site.acme] != m.users[site.acme] || users[site.globex] != m.users[site.globex] || len(h.book.organizations) != m.orgs {
		h.t.Errorf("%d organizations with users %v, want %d with %v", len(h.book.organizations), users, m.orgs, m.users)
	}
	for i := 1; i <= pendings; i++ {
		id := fmt.Sprint("wal_", i)
		if active := h.book.wallets[id].Status == statusActive; active != m.confirmed[id] {
			h.t.Errorf("wallet %s is %s, confirmed: %v", id, h.book.wallets[id].Status, m.confirmed[id])
		}
	}
	for i := 1; i <= actives; i++ {
		id := fmt.Sprint("dlg_", i)
		_, err := h.Current(id)
		if revoked := refusal.Is(err, refusal.DelegationRevoked); revoked != m.revoked[id] || h.book.delegations[id].Status == statusRevoked != revoked {
			h.t.Errorf("delegation %s: %v, revoked: %v", id, err, m.revoked[id])
		}
	}
	acts := 0
	for _, e := range h.entries() {
		if e.RequestID != "" {
			acts++
		}
	}
	if acts != len(m.done) {
		h.t.Errorf("journal has %d acts, want %d", acts, len(m.done))
	}
}

func withSubjects(h *house) {
	set := mpctest.Ed25519DelegateSet(h.t)
	for i := 1; i <= pendings; i++ {
		id := fmt.Sprint("wal_", i)
		h.wallet(id, cluster, mpctest.Ed25519RootSet(h.t))
		h.put(func(tx *vault.Tx) error {
			w := wallet{}
			err := tx.With(vault.TypeWallet, id, func(b []byte) error { return decodeRecord(b, &w) })
			w.Status = statusPending
			return errors.Join(err, store(tx, vault.TypeWallet, id, &w),
				store(tx, vault.TypeOutbox, id, &waitingShare{V: recordVersion, Wallet: id, Ciphertext: []byte(id), CreatedAt: began}))
		})
	}
	h.wallet(solWallet, cluster, mpctest.Ed25519RootSet(h.t))
	for i := 1; i <= actives; i++ {
		h.active(fmt.Sprint("dlg_", i), set)
	}
}

// Five hundred acts by whoever, under ids that repeat, with restarts between.
func TestRandomActsAgreeWithTheModel(t *testing.T) {
	h := newHouse(t, withSubjects)
	m := &acted{done: map[string]request{}, users: map[string]int{}, confirmed: map[string]bool{}, revoked: map[string]bool{}}
	for _, u := range h.book.users {
		m.users[u.Organization]++
	}
	m.orgs = len(h.book.organizations)
	for _, e := range h.entries() {
		if e.RequestID != "" {
			m.done[e.Organization+"/"+e.RequestID] = request{what: "before"}
		}
	}
	r := rand.New(rand.NewPCG(2026, 5))
	seen := map[refusal.Reason]int{}
	for i := range 500 {
		s := randomStep(r)
		reason, stored, change := m.want(s)
		seen[reason]++
		answer, err := h.perform(s)
		switch {
		case reason != "":
			if !refusal.Is(err, reason) {
				t.Fatalf("step %d %+v: %v, %v; want %s", i, s, answer, err, reason)
			}
		case err != nil:
			t.Fatalf("step %d %+v: %v, want it done", i, s, err)
		case stored != nil:
			if answer != stored.answer {
				t.Fatalf("step %d %+v: answer %v, the first was %v", i, s, answer, stored.answer)
			}
		default:
			change(answer)
		}
		if i%100 == 99 {
			h.agree(m)
			h.restart()
			h.agree(m)
		}
	}
	for _, reason := range []refusal.Reason{"", refusal.QuorumMissing, refusal.NotFound, refusal.RequestIDReused, refusal.NotActive} {
		if seen[reason] < 5 {
			t.Errorf("%q was met %d times: the steps reach too little", reason, seen[reason])
		}
	}
}
