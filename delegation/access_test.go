package delegation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// apiUser is a delegated user that stamps: what registers it, and its key.
var apiUser = newHolder(credential.ForDelegatedUser, "trader")

// soleIntent allows a delegated user small payments; n makes it another policy.
func soleIntent(user string, n int) Intent {
	return Intent{Policy: policy.Policy{
		Name: fmt.Sprint("payouts ", n), Effect: policy.Allow, Lang: policy.LangTurnkey,
		Condition: "solana.tx.transfers.all(t, t.amount <= 500)", Consensus: soleConsensus(user),
	}}
}

func newSub(id string, n int) (member, NewSubOrganization) {
	m, u := fixedMember(n)
	return m, NewSubOrganization{
		RequestID: id, Parent: site.acme, Name: fmt.Sprint("sub ", n),
		EndUser: NewEndUser{Name: u.Name, Credentials: u.Credentials, ShareRecipient: u.ShareRecipient, RecipientSignature: u.RecipientSignature},
	}
}

// fixedMember is the same for the same n, so that the same message can be made again.
func fixedMember(n int) (member, NewUser) {
	fixed.mu.Lock()
	defer fixed.mu.Unlock()
	f, ok := fixed.made[n]
	if !ok {
		f.m, f.u = newMember("", fmt.Sprint("user ", n))
		fixed.made[n] = f
	}
	return f.m, f.u
}

var fixed = struct {
	mu   sync.Mutex
	made map[int]struct {
		m member
		u NewUser
	}
}{made: map[int]struct {
	m member
	u NewUser
}{}}

func newAccess(id string, n int) (member, NewAccess) {
	m, sub := newSub(id, n)
	return m, NewAccess{
		NewSubOrganization: sub, DelegatedUser: NewDelegatedUser{Name: "trader", Credential: apiUser.NewCredential},
		Policies: []Intent{soleIntent(delegatedUserHole, n)},
	}
}

// memberActs are the acts on members and accesses, for every test of acts.
func memberActs(both func() []holder, rootShort, ownerShort map[string][]holder) []actCase {
	bg := context.Background()
	dana := func() []holder { return []holder{site.dana.holder} }
	spare := newHolder(credential.ForUser, "spare")
	keys := [3]holder{1: newHolder(credential.ForUser, "next"), 2: newHolder(credential.ForUser, "other")}
	return []actCase{{
		name: "AddCredential", org: site.acme, by: dana, short: ownerShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			c := []NewCredential{{}, spare.NewCredential, keys[2].NewCredential}[n]
			m := AddedCredential{RequestID: id, Organization: org, User: site.dana.id, Credential: c}
			return h.AddCredential(bg, a(m), m)
		},
	}, {
		name: "RotateCredential", org: site.acme, by: dana, short: ownerShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := Rotation{RequestID: id, Organization: org, User: site.dana.id, Old: site.dana.PublicKey.ID(), New: keys[n].NewCredential, Overlap: time.Hour}
			return h.RotateCredential(bg, a(m), m)
		},
	}, {
		name: "SetTags", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewTags{RequestID: id, Organization: org, User: site.bot, Tags: []string{fmt.Sprint("tag-", n)}}
			return nil, h.SetTags(bg, a(m), m)
		},
	}, {
		name: "RemoveUser", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			u := []string{"", spareUser, site.dana.id}[n]
			return nil, h.RemoveUser(bg, a(removal{id, u}), id, org, u)
		},
	}, {
		name: "SetRootQuorum", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewQuorum{RequestID: id, Organization: org, Users: []string{site.erin.id},
				Credentials: []string{site.root[0].PublicKey.ID(), site.root[1].PublicKey.ID()}, Quorum: 1 + n}
			return nil, h.SetRootQuorum(bg, a(m), m)
		},
	}, {
		name: "CreateSubOrganization", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			_, m := newSub(id, n)
			m.Parent = org
			return h.CreateSubOrganization(bg, a(m.RequestID+m.Name), m)
		},
	}, {
		name: "CreateDelegatedAccess", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			_, m := newAccess(id, n)
			m.Parent = org
			return h.CreateDelegatedAccess(bg, a(m.RequestID+m.Name), m)
		},
	}, {
		name: "FetchOrCreateDelegatedUser", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewAccessUser{RequestID: id, Organization: org, User: NewDelegatedUser{Name: fmt.Sprint("trader ", n), Credential: apiUser.NewCredential}}
			return h.FetchOrCreateDelegatedUser(bg, a(m), m)
		},
	}, {
		name: "FetchOrCreatePolicies", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewIntents{RequestID: id, Organization: org, Policies: []Intent{soleIntent(site.bot, n)}}
			return h.FetchOrCreatePolicies(bg, a(m), m)
		},
	}, {
		name: "CreateKey", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewWallet{RequestID: id, Organization: org, Chain: "eip155", Name: fmt.Sprint("k ", n), Delay: true}
			return h.CreateKey(bg, a(m), m)
		},
	}, {
		name: "DelegateKey", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := newKeyDelegation(id, delayWallet, []string{"", site.dana.id, site.erin.id}[n])
			m.Organization = org
			return h.DelegateKey(bg, a(m), m)
		},
	}}
}

// spareUser is a delegated user of acme that withDelegations makes.
const spareUser = "usr_spare"

type removal struct{ RequestID, User string }

// access makes a sub-organization with a delegated user, and gives it a Solana wallet
// with a root set, as ceremonies would have left it.
func (h *house) access(id string, n int) (member, AccessCreated) {
	h.t.Helper()
	m, a := newAccess(id, n)
	made, err := h.CreateDelegatedAccess(context.Background(), stamped(site.acme, a.RequestID, site.root...), a)
	if err != nil {
		h.t.Fatal(err)
	}
	m.id = made.EndUserID
	return m, made
}

func TestDelegatedAccessIsWhole(t *testing.T) {
	h := newHouse(t)
	owner, made := h.access("one", 1)
	check := func(h *house) {
		t.Helper()
		m, err := h.Members(look(made.OrganizationID, owner.holder), made.OrganizationID)
		if err != nil {
			t.Fatal(err)
		}
		if m.Parent != site.acme || m.Quorum != 1 || len(m.Root) != 0 || len(m.Users) != 2 {
			t.Errorf("members %+v", m)
		}
		for _, u := range m.Users {
			if root := u.ID == owner.id; u.Root != root || (u.Kind == EndUser) != root {
				t.Errorf("user %+v, root %v", u, root)
			}
		}
		checked, err := h.VerifyDelegatedAccess(look(made.OrganizationID, owner.holder), made.OrganizationID, made.DelegatedUserID)
		if err != nil || len(checked) != len(invariants) {
			t.Fatalf("%v, %v", checked, err)
		}
		for _, c := range checked {
			if !c.Holds {
				t.Errorf("%s does not hold: %s", c.ID, c.Text)
			}
		}
		d, err := h.Documents(look(made.OrganizationID, owner.holder), made.OrganizationID, nil)
		if err != nil || len(d.List) != 1 || d.List[0].Name != made.PolicyIDs[0] {
			t.Errorf("documents %+v, %v", d, err)
		}
	}
	check(h)
	h.restart()
	check(h)

	h.unchanged("what the parent, and others, do inside", func() {
		for name, by := range map[string][]holder{"parent": site.root, "delegate": {apiUser}, "operators": site.operators, "gina": {site.gina.holder}} {
			for act, err := range map[string]error{
				"Members": second(h.Members(look(made.OrganizationID, by...), made.OrganizationID)),
				"CreateUser": second(h.CreateUser(context.Background(), look(made.OrganizationID, by...),
					NewUser{RequestID: "x", Organization: made.OrganizationID, Name: "x", Kind: DelegatedUser})),
				"SetRootQuorum": h.SetRootQuorum(context.Background(), look(made.OrganizationID, by...), NewQuorum{RequestID: "x", Organization: made.OrganizationID, Users: []string{owner.id}, Quorum: 1}),
			} {
				wantRefusal(t, name+" "+act, err, refusal.QuorumMissing)
			}
			wantRefusal(t, name, second(h.Members(look(site.acme, by...), made.OrganizationID)), refusal.NotFound)
		}
		sub := NewSubOrganization{}
		_, sub = newSub("nested", 9)
		sub.Parent = made.OrganizationID
		wantRefusal(t, "nested", second(h.CreateSubOrganization(context.Background(), look(made.OrganizationID, owner.holder), sub)), refusal.RequestInvalid)
	})
}

func second[T any](_ T, err error) error { return err }

// Limits and policies of one wallet come with the access, in its transaction.
func TestDelegatedAccessWithLimitsAndAWalletsPolicy(t *testing.T) {
	h := newHouse(t, idle)
	ask := func(id string, change func(*NewAccess)) (member, AccessCreated, error) {
		m, a := newAccess(id, 1)
		a.Wallets = []NewWallet{{Chain: cluster, Name: "one"}, {Chain: cluster, Name: "two"}}
		a.Policies[0].Wallet = "${wallet_2}"
		a.Limits = []policy.Limit{{Name: "an hour", Asset: cluster + "/slip44:501", Max: *uint256.NewInt(700), Window: time.Hour}}
		change(&a)
		made, err := h.CreateDelegatedAccess(context.Background(), stamped(site.acme, a.RequestID, site.root...), a)
		return m, made, err
	}
	for name, change := range map[string]func(*NewAccess){
		"a wallet that is not made":  func(a *NewAccess) { a.Policies[0].Wallet = "${wallet_3}" },
		"the wallet of somebody":     func(a *NewAccess) { a.Policies[0].Wallet = solWallet },
		"too many limits":            func(a *NewAccess) { a.Limits = make([]policy.Limit, maxRules+1) },
		"a limit of nothing":         func(a *NewAccess) { a.Limits[0].Asset = "" },
		"a limit without end":        func(a *NewAccess) { a.Limits[0].Window = policy.MaxWindow + time.Hour },
		"a limit on a strange asset": func(a *NewAccess) { a.Limits[0].Asset = "gold" },
	} {
		h.unchanged(name, func() {
			if _, _, err := ask("bad "+name, change); err == nil {
				t.Errorf("%s is taken", name)
			}
		})
	}
	owner, made, err := ask("one", func(*NewAccess) {})
	if err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	h.restart()
	look := look(made.OrganizationID, owner.holder)
	d, err := h.Documents(look, made.OrganizationID, nil)
	want := []string{limitsDocument, made.Wallets[1].WalletID + "." + made.PolicyIDs[0]}
	if err != nil || len(d.List) != 2 || d.List[0].Name != want[0] || d.List[1].Name != want[1] {
		t.Fatalf("documents %+v, %v, want %v", d, err, want)
	}
	content := func(name string) string {
		one, err := h.Documents(look, made.OrganizationID, &DocumentName{KindRules, name})
		if err != nil || len(one.List) != 1 {
			t.Fatalf("%+v, %v", one, err)
		}
		return string(one.List[0].Content)
	}
	if text := content(want[1]); !strings.Contains(text, "wallet.id == '"+made.Wallets[1].WalletID+"'") {
		t.Errorf("the policy is not the wallet's: %s", text)
	}
	if text := content(want[0]); len(made.LimitIDs) != 1 || !strings.Contains(text, `"id":"`+made.LimitIDs[0]+`"`) || !strings.Contains(text, `"window_seconds":3600`) {
		t.Errorf("limits %v, %s", made.LimitIDs, text)
	}
}

// Killed at any of its steps, all of it is there or nothing: a copy of the files is
// opened as they are each time the act looks at the clock, and after its end.
func TestDelegatedAccessIsAllOrNothing(t *testing.T) {
	h := newHouse(t)
	var copies []*house
	var look func()
	look = func() {
		h.clock.look(nil)
		copies = append(copies, h.crashed())
		h.clock.look(look)
	}
	h.clock.look(look)
	_, made := h.access("one", 1)
	h.clock.look(nil)
	steps := len(copies)
	if steps < 5 {
		t.Fatalf("the act was caught at %d steps, want one for each record at least", steps)
	}
	for i, c := range append(copies, h.crashed()) {
		all := []bool{
			c.book.organizations[made.OrganizationID] != nil, c.book.users[made.EndUserID] != nil, c.book.users[made.DelegatedUserID] != nil,
			c.book.rulebooks[made.OrganizationID] != nil, len(c.acts("one")) == 1,
		}
		want := all[0]
		if !reflect.DeepEqual(all, []bool{want, want, want, want, want}) || i == steps && !want || i < 5 && want {
			t.Errorf("crash %d of %d: %v", i, steps, all)
		}
	}
}

// A thousand calls with one request id are one effect.
func TestThousandCallsMakeOneAccess(t *testing.T) {
	h := newHouse(t)
	_, n := newAccess("one", 1)
	var answers [1000]AccessCreated
	var errs [1000]error
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			m := n
			m.Policies = append([]Intent{}, n.Policies...)
			answers[i], errs[i] = h.CreateDelegatedAccess(context.Background(), stamped(site.acme, "one", site.root...), m)
		})
	}
	wg.Wait()
	for i := range answers {
		if errs[i] != nil || !reflect.DeepEqual(answers[i], answers[0]) {
			t.Fatalf("call %d: %+v, %v", i, answers[i], errs[i])
		}
	}
	if orgs := len(h.book.organizations); orgs != 3 || len(h.acts("one")) != 1 {
		t.Errorf("%d organizations, want 3; entries %d", orgs, len(h.acts("one")))
	}
}

func TestFetchOrCreate(t *testing.T) {
	h := newHouse(t)
	owner, made := h.access("one", 1)
	org := made.OrganizationID
	fetch := func(id, name string, c NewCredential) (AccessUser, error) {
		n := NewAccessUser{RequestID: id, Organization: org, User: NewDelegatedUser{Name: name, Credential: c}}
		return h.FetchOrCreateDelegatedUser(context.Background(), stamped(org, n, owner.holder), n)
	}
	if u, err := fetch("f1", "another name", apiUser.NewCredential); err != nil || u.Created || u.UserID != made.DelegatedUserID {
		t.Errorf("found %+v, %v, want %s", u, err, made.DelegatedUserID)
	}
	other := newHolder(credential.ForDelegatedUser, "other")
	u, err := fetch("f2", "other", other.NewCredential)
	if err != nil || !u.Created {
		t.Errorf("made %+v, %v", u, err)
	}
	mine := NewCredential{Name: "user 1", PublicKey: owner.PublicKey}
	if mine.Proof, err = credential.NewProof(owner.key, credential.ForDelegatedUser, mine.Name); err != nil {
		t.Fatal(err)
	}
	_, err = fetch("f3", "the owner", mine)
	wantRefusal(t, "the owner's key", err, refusal.RequestInvalid)

	policies := func(id string, list ...Intent) (PoliciesFetched, error) {
		n := NewIntents{RequestID: id, Organization: org, Policies: list}
		return h.FetchOrCreatePolicies(context.Background(), stamped(org, n.RequestID, owner.holder), n)
	}
	same, noted := soleIntent(made.DelegatedUserID, 1), soleIntent(made.DelegatedUserID, 1)
	noted.Notes = "for the summer"
	got, err := policies("p1", same, noted)
	if err != nil || got.Policies[0] != (Fetched{made.PolicyIDs[0], false}) || !got.Policies[1].Created || got.Version != 2 {
		t.Errorf("%+v, %v; want the first found and the second made", got, err)
	}
	abstains := same
	abstains.Policy.RequesterAbstains = true
	if abstains.id() == same.id() {
		t.Error("a policy without the requester has the id of one with")
	}
	if got, err = policies("p2", noted, same); err != nil || got.Policies[0].Created || got.Policies[1].Created || got.Version != 2 {
		t.Errorf("asked again: %+v, %v", got, err)
	}
	_, err = policies("p3", same, same)
	wantRefusal(t, "twice", err, refusal.RequestInvalid)
	bad := same
	bad.Policy.Condition = "eth.tx.tu == 1"
	_, err = policies("p4", bad)
	wantRefusal(t, "does not compile", err, refusal.PolicyInvalid)
	elsewhere := same
	elsewhere.Wallet = solWallet
	_, err = policies("p5", elsewhere)
	wantRefusal(t, "a wallet of another organization", err, refusal.NotFound)
	_, err = policies("p6")
	wantRefusal(t, "none", err, refusal.RequestInvalid)

	// The delegated user gives up what is its own, and nothing else.
	deny := Intent{Policy: policy.Policy{Name: "no", Effect: policy.Deny, Condition: "false", Consensus: soleConsensus(made.DelegatedUserID)}}
	any := Intent{Policy: policy.Policy{Name: "any", Effect: policy.Allow, Consensus: soleConsensus(made.DelegatedUserID) + " || true"}}
	if got, err = policies("p7", deny, any); err != nil {
		t.Fatal(err)
	}
	report := func(id string, by holder, policies ...string) error {
		n := FilledOrder{RequestID: id, Organization: org, Policies: policies, By: "request 7"}
		return second(h.ReportOrderFilled(context.Background(), stamped(org, n, by), n))
	}
	wantRefusal(t, "a DENY", report("r1", apiUser, got.Policies[0].ID), refusal.NotFound)
	wantRefusal(t, "one that allows others", report("r2", apiUser, got.Policies[1].ID), refusal.NotFound)
	wantRefusal(t, "another delegated user's", report("r3", other, noted.id()), refusal.NotFound)
	wantRefusal(t, "nobody", report("r4", site.gina.holder, noted.id()), refusal.QuorumMissing)
	if err := report("r5", apiUser, noted.id()); err != nil {
		t.Error(err)
	}
	wantRefusal(t, "again", report("r6", apiUser, noted.id()), refusal.NotFound)
	if err := report("r7", owner.holder, got.Policies[0].ID, got.Policies[1].ID); err != nil {
		t.Error(err)
	}
	if e := h.last(); e.Facts["filled_by"] != "request 7" || e.Facts["removed.rules/"+got.Policies[0].ID] != "true" {
		t.Errorf("entry %+v", e)
	}
}

// Records that break an invariant: told by VerifyDelegatedAccess, and the user signs nothing.
func TestBrokenInvariants(t *testing.T) {
	rows := map[string]func(h *house, o *organization, u *user, tx *vault.Tx) error{
		"DA-1": func(h *house, o *organization, u *user, tx *vault.Tx) error {
			o.RootUsers = append(o.RootUsers, u.ID)
			return nil
		},
		"DA-2": func(h *house, o *organization, u *user, tx *vault.Tx) error {
			o.Root = u.Credentials
			return nil
		},
		"DA-3": func(h *house, o *organization, u *user, tx *vault.Tx) error {
			end := began
			u.Credentials[0].LineEnds = &end
			return nil
		},
		"DA-4": func(h *house, o *organization, u *user, tx *vault.Tx) error { o.Quorum = 2; return nil },
		"DA-5": func(h *house, o *organization, u *user, tx *vault.Tx) error {
			o.RootUsers = []string{site.gina.id}
			return nil
		},
		"DA-6": func(h *house, o *organization, u *user, tx *vault.Tx) error {
			var w wallet
			err := tx.With(vault.TypeWallet, solWallet, func(b []byte) error { return decodeRecord(b, &w) })
			var k key
			err = errors.Join(err, tx.With(vault.TypeKey, w.Key, func(b []byte) error { return decodeRecord(b, &k) }))
			w.Owner, k.Owner = u.ID, u.ID
			return errors.Join(err, store(tx, vault.TypeWallet, w.ID, &w), store(tx, vault.TypeKey, k.ID, &k))
		},
		"DA-7": func(h *house, o *organization, u *user, tx *vault.Tx) error { u.Removed = true; return nil },
	}
	if len(rows) != len(invariants) {
		t.Errorf("%d rows for %d invariants", len(rows), len(invariants))
	}
	for id, spoil := range rows {
		t.Run(id, func(t *testing.T) {
			h := newHouse(t, withWallet)
			owner, made := h.access("one", 1)
			h.put(func(tx *vault.Tx) error {
				o, u := *h.book.organizations[made.OrganizationID], *h.book.users[made.DelegatedUserID]
				u.Credentials = append([]registered{}, u.Credentials...)
				var w wallet
				err := tx.With(vault.TypeWallet, solWallet, func(b []byte) error { return decodeRecord(b, &w) })
				var k key
				err = errors.Join(err, tx.With(vault.TypeKey, w.Key, func(b []byte) error { return decodeRecord(b, &k) }))
				w.Organization, w.Owner, k.Organization, k.Owner = made.OrganizationID, owner.id, made.OrganizationID, owner.id
				err = errors.Join(err, store(tx, vault.TypeWallet, w.ID, &w), store(tx, vault.TypeKey, k.ID, &k), spoil(h, &o, &u, tx))
				return errors.Join(err, store(tx, vault.TypeOrganization, o.ID, &o), store(tx, vault.TypeUser, u.ID, &u))
			})
			h.restart()
			_, err := h.AuthenticateStamps(made.OrganizationID, solWallet, []credential.PublicKey{apiUser.PublicKey})
			if no := wantRefusal(t, "signing", err, refusal.NotActive); no.Details["invariant"] != id {
				t.Errorf("invariant %q, want %s", no.Details["invariant"], id)
			}
			by := owner.holder
			if id == "DA-4" || id == "DA-5" {
				return // nobody can ask
			}
			checked, err := h.VerifyDelegatedAccess(look(made.OrganizationID, by), made.OrganizationID, made.DelegatedUserID)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range checked {
				if c.ID == "DA-5" && id == "DA-1" {
					continue // the root has what is no end user
				}
				if c.Holds == (c.ID == id) {
					t.Errorf("%s holds: %v", c.ID, c.Holds)
				}
			}
		})
	}
}

func TestInvariantsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/access.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| (DA-\d+) \| (.*) \|$`).FindAllSubmatch(text, -1)
	if len(rows) != len(invariants) {
		t.Fatalf("docs/access.md has %d invariants, want %d", len(rows), len(invariants))
	}
	for i, inv := range invariants {
		if string(rows[i][1]) != inv.id || !bytes.HasPrefix(bytes.ToLower(rows[i][2]), []byte(strings.ToLower(inv.text))) {
			t.Errorf("docs/access.md: %s is %q, want %q", rows[i][1], rows[i][2], inv.text)
		}
	}
}
