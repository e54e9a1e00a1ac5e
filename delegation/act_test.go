package delegation

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// actCase is one act as every test below puts it: call performs it under a request
// id; another message under the same id has n+1.
type actCase struct {
	name string
	org  string
	by   func() []holder
	call func(h *house, a func(message any) Actor, org, id string, n int) (any, error)
	// short are those whose stamps don't suffice.
	short map[string][]holder
}

var errNoPrimes = errors.New("no pre-parameters today")

// idle makes ceremonies of ECDSA keys fail at once.
func idle(h *house) {
	h.cfg.PreParameters = func(context.Context) (*mpc.PreParams, error) { return nil, errNoPrimes }
}

// acts are all acts. The house needs withWallet, withEther, withPending and idle.
func acts() []actCase {
	both := func() []holder { return site.root[:2] }
	dana := func() []holder { return []holder{site.dana.holder} }
	rootShort := map[string][]holder{"one of two": site.root[:1], "one twice": {site.root[0], site.root[0]}, "owner": {site.dana.holder},
		"operators": site.operators, "another organization's root": site.globexRoot, "none": nil}
	ownerShort := map[string][]holder{"root": site.root, "another user": {site.erin.holder}, "another organization's user": {site.gina.holder},
		"operators": site.operators, "none": nil}
	// eitherShort falls short of the root quorum and of the owner.
	eitherShort := map[string][]holder{"one root of two": site.root[:1], "another user": {site.erin.holder}, "operators": site.operators,
		"another organization's root": site.globexRoot, "none": nil}
	return append([]actCase{{
		name: "CreateOrganization", by: func() []holder { return site.operators[1:] },
		short: map[string][]holder{"one of two": site.operators[:1], "one twice": {site.operators[0], site.operators[0]}, "root": site.root, "none": nil},
		call: func(h *house, a func(any) Actor, _, id string, n int) (any, error) {
			m := NewOrganization{RequestID: id, Name: fmt.Sprint("org ", n), Root: []NewCredential{site.root[0].NewCredential}, Quorum: 1}
			return h.CreateOrganization(context.Background(), a(m), m)
		},
	}, {
		name: "CreateUser", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewUser{RequestID: id, Organization: org, Name: fmt.Sprint("bot ", n), Kind: DelegatedUser}
			return h.CreateUser(context.Background(), a(m), m)
		},
	}, {
		name: "CreateWallet", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewWallet{RequestID: id, Organization: org, Owner: site.dana.id, Chain: "eip155", Name: fmt.Sprint("w ", n)}
			return h.CreateWallet(context.Background(), a(m), m)
		},
	}, {
		name: "ConfirmShare", org: site.acme, by: dana, short: ownerShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			sum := sha256.Sum256([]byte{byte(n)})
			m := NewReceipt{RequestID: id, Organization: org, Wallet: pendingWallet, SHA256: sum[:]}
			return h.ConfirmShare(context.Background(), a(m), m)
		},
	}, {
		name: "CreateDelegation", org: site.acme, by: dana, short: ownerShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := newDelegation(id, ethWallet)
			m.Organization, m.Policies[0].Name = org, fmt.Sprint("p ", n)
			return h.CreateDelegation(context.Background(), a(m), m)
		},
	}, {
		name: "RevokeDelegation", org: site.acme, by: dana,
		short: map[string][]holder{"one root of two": site.root[:1], "another user": {site.erin.holder}, "operators": site.operators,
			"another organization's root": site.globexRoot, "none": nil},
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := revocation{id, fmt.Sprint("dlg_", n)}
			return h.RevokeDelegation(context.Background(), a(m), id, org, m.Delegation)
		},
	}, {
		name: "SetDelegatedAccess", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewDelegatedAccess{RequestID: id, Organization: org, Access: DelegatedAccess{Enabled: true, Lifetime: uint32(n)}}
			return nil, h.SetDelegatedAccess(context.Background(), a(m), m)
		},
	}, {
		name: "SetDocuments", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := DocumentChanges{RequestID: id, Organization: org, Set: []NewDocument{rulesDocument("main", fmt.Sprintf(`{"policies":[{"id":"p%d","effect":"EFFECT_DENY","condition":"false"}]}`, n))}}
			return h.SetDocuments(context.Background(), a(m), m)
		},
	}, {
		name: "Pause", org: site.acme, by: dana,
		short: map[string][]holder{"another user": {site.erin.holder}, "operators": site.operators, "another organization's root": site.globexRoot, "none": nil},
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewPause{RequestID: id, Scope: Scope{Organization: org, Wallet: solWallet}, Reason: fmt.Sprint("drill ", n)}
			return h.Pause(context.Background(), a(m), m)
		},
	}, {
		name: "SetKey", org: site.acme, by: dana, short: eitherShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			every := time.Duration(n) * time.Hour
			m := KeySettings{RequestID: id, Organization: org, Wallet: solWallet, RotateEvery: &every}
			stamp := m
			stamp.RotateEvery = nil // an address would differ each time
			stamp.Wallet += every.String()
			return h.SetKey(context.Background(), a(stamp), m)
		},
	}, {
		name: "RotateKey", org: site.acme, by: both, short: eitherShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewRotation{RequestID: id, Organization: org, Wallet: []string{ethWallet, solWallet}[n-1]}
			return h.RotateKey(context.Background(), a(m), m)
		},
	}, {
		name: "RecoverShare", org: site.acme, by: dana, short: eitherShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewShareRecovery{RequestID: id, Organization: org, Wallet: []string{ethWallet, solWallet}[n-1]}
			return h.RecoverShare(context.Background(), a(m), m)
		},
	}, {
		name: "RecoverDevice", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewDeviceRecovery{RequestID: id, Organization: org, User: site.erin.id, Credentials: []NewCredential{site.erin.NewCredential}, Recipient: site.erin.age.Recipient().String()}
			var err error
			if m.RecipientSignature, err = credential.SignRecipient(site.erin.key, m.Recipient); err != nil {
				return nil, err
			}
			m.User += strings.Repeat("x", n-1)
			return h.RecoverDevice(context.Background(), a(m), m)
		},
	}, {
		name: "RecoverCustodian", org: site.acme, by: dana, short: ownerShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewCustodianRecovery{RequestID: id, Organization: org, Wallet: ethWallet, Share: mpctest.ECDSARootSet(h.t).Shares(h.t, mpc.User)[0]}
			if n > 1 {
				m.Wallet = solWallet
			}
			return h.RecoverCustodian(context.Background(), a(m), m)
		},
	}, {
		name: "Resume", org: site.acme, by: both, short: rootShort,
		call: func(h *house, a func(any) Actor, org, id string, n int) (any, error) {
			m := NewPause{RequestID: id, Scope: Scope{Organization: org}, Reason: fmt.Sprint("drill ", n)}
			return nil, h.Resume(context.Background(), a(m), id, m.Scope)
		},
	}}, memberActs(both, rootShort, ownerShort)...)
}

// pendingWallet is a wallet of dana's whose share waits; its ciphertext is one byte, 1.
const pendingWallet = "wal_pending"

func withPending(h *house) {
	h.t.Helper()
	set := mpctest.Ed25519RootSet(h.t)
	h.wallet(pendingWallet, cluster, set)
	h.put(func(tx *vault.Tx) error {
		w := wallet{}
		err := tx.With(vault.TypeWallet, pendingWallet, func(b []byte) error { return decodeRecord(b, &w) })
		w.Status = statusPending
		out := waitingShare{V: recordVersion, Wallet: pendingWallet, Recipient: "age1", Ciphertext: []byte{1}, CreatedAt: began}
		return errors.Join(err, store(tx, vault.TypeWallet, w.ID, &w), store(tx, vault.TypeOutbox, w.ID, &out))
	})
}

// withDelegations gives dana's Solana wallet two active delegations, dlg_1 and dlg_2.
func withDelegations(h *house) {
	h.t.Helper()
	set := mpctest.Ed25519DelegateSet(h.t)
	h.active("dlg_1", set)
	h.active("dlg_2", set)
	h.put(func(tx *vault.Tx) error {
		return store(tx, vault.TypeUser, spareUser, &user{V: recordVersion, ID: spareUser, Organization: site.acme, Name: "spare", Kind: DelegatedUser, CreatedAt: began})
	})
}

// active writes an active delegation whose API key nobody has.
func (h *house) active(id string, set mpctest.Set) {
	h.t.Helper()
	policies, _, err := checkRules(id, newDelegation("x", solWallet))
	if err != nil {
		h.t.Fatal(err)
	}
	mine := set.ShareSet
	mine.ID = id + "/1"
	d := &delegationRecord{V: recordVersion, ID: id, Organization: site.acme, Wallet: solWallet, Owner: site.dana.id, DelegatedUser: site.bot,
		Status: statusActive, CreatedAt: began, Recipient: "age1", Policies: policies, Set: mine, APIKey: "key_" + id, Version: 2}
	k := &apiKeyRecord{V: recordVersion, ID: d.APIKey, Delegation: id, CreatedAt: began, Verifier: make([]byte, 32)}
	h.put(func(tx *vault.Tx) error {
		for n, p := range mine.Parties {
			if err := tx.Put(vault.TypeShare, ShareID(mine.ID, p), set.Shares(h.t)[n]); err != nil {
				return err
			}
		}
		return errors.Join(store(tx, vault.TypeDelegation, id, d), store(tx, vault.TypeAPIKey, k.ID, k))
	})
}

func newFullHouse(t testing.TB) *house {
	return newHouse(t, withWallet, withEther, withPending, withDelegations, withDelay, idle)
}

func (c actCase) do(h *house, org string, by []holder, id string, n int) (any, error) {
	return c.call(h, func(m any) Actor { return stamped(c.stampOrg(org), m, by...) }, org, id, n)
}

// stampOrg: operators' stamps name no organization, and their act has none.
func (c actCase) stampOrg(org string) string {
	if c.org == "" {
		return ""
	}
	return org
}

func TestActs(t *testing.T) {
	for _, c := range acts() {
		t.Run(c.name, func(t *testing.T) {
			h := newFullHouse(t)
			h.unchanged("acts without a quorum", func() {
				for name, by := range c.short {
					_, err := c.do(h, c.org, by, "short", 1)
					wantRefusal(t, name, err, refusal.QuorumMissing)
				}
			})
			h.unchanged("acts with bad request ids", func() {
				for _, id := range []string{"", "a b", "a/b", "ä", strings.Repeat("x", 65)} {
					_, err := c.do(h, c.org, c.by(), id, 1)
					if no := wantRefusal(t, id, err, refusal.RequestInvalid); no.Details["field"] != "request_id" {
						t.Errorf("id %q: field %q", id, no.Details["field"])
					}
				}
			})

			first, err := c.do(h, c.org, c.by(), "id", 1)
			if err != nil {
				t.Fatal(err)
			}
			h.running.Wait() // its ceremony, if it has one
			e := h.acts("id")
			if len(e) != 1 || e[0].Method == "" || *e[0].Caller != caller || len(e[0].Credentials) != len(c.by()) || e[0].Organization != c.org || len(e[0].Answer) == 0 {
				t.Errorf("entries %+v, want one that says who did what", e)
			}
			again, err := c.do(h, c.org, c.by(), "id", 1)
			if err != nil || !reflect.DeepEqual(first, again) {
				t.Errorf("asked again: %+v, %v, want %+v", again, err, first)
			}
			h.unchanged("a stored answer without a quorum", func() {
				for name, by := range c.short {
					_, err := c.do(h, c.org, by, "id", 1)
					wantRefusal(t, name, err, refusal.QuorumMissing)
				}
			})
			_, err = c.do(h, c.org, c.by(), "id", 2)
			wantRefusal(t, "another message", err, refusal.RequestIDReused)
			other := func(m any) Actor {
				a := stamped(c.org, m, c.by()...)
				a.Method += "2"
				return a
			}
			_, err = c.call(h, other, c.org, "id", 1)
			wantRefusal(t, "another method", err, refusal.RequestIDReused)

			h.restart()
			again, err = c.do(h, c.org, c.by(), "id", 1)
			if ceremonies := c.name == "RevokeDelegation" || c.name == "ConfirmShare"; err != nil || (!ceremonies && !reflect.DeepEqual(first, again)) {
				t.Errorf("after a restart: %+v, %v, want %+v", again, err, first)
			}
			if n := len(h.acts("id")); n != 1 {
				t.Errorf("%d entries, want 1", n)
			}
		})
	}
}

// acts are the entries with a request id.
func (h *house) acts(id string) (out []journal.Entry) {
	for _, e := range h.entries() {
		if e.RequestID == id {
			out = append(out, e)
		}
	}
	return out
}

// Sixteen calls with one id are one act, and all get its answer.
func TestConcurrentActsWithOneID(t *testing.T) {
	for _, c := range acts() {
		t.Run(c.name, func(t *testing.T) {
			h := newFullHouse(t)
			var answers [16]any
			var errs [16]error
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() { answers[i], errs[i] = c.do(h, c.org, c.by(), "id", 1) })
			}
			wg.Wait()
			for i := range answers {
				if errs[i] != nil || !reflect.DeepEqual(answers[i], answers[0]) {
					t.Errorf("call %d: %+v, %v; the first got %+v", i, answers[i], errs[i], answers[0])
				}
			}
			if n := len(h.acts("id")); n != 1 {
				t.Errorf("%d entries, want 1", n)
			}
		})
	}
}

// Whoever stamps for one organization learns nothing about another: it is as if
// it did not exist.
func TestForeignOrganizationsLookUnknown(t *testing.T) {
	h := newFullHouse(t)
	everybody := append(append(append([]holder{site.dana.holder, site.erin.holder, site.gina.holder}, site.root...), site.globexRoot...), site.operators...)
	h.unchanged("acts on foreign organizations", func() {
		for _, c := range acts() {
			if c.org == "" {
				continue
			}
			foreign := func(m any) Actor { return stamped(site.globex, m, everybody...) }
			_, err := c.call(h, foreign, site.acme, "id", 1)
			there := wantRefusal(t, c.name+" of a foreign organization", err, refusal.NotFound)
			_, err = c.call(h, foreign, "org_nowhere", "id", 1)
			nowhere := wantRefusal(t, c.name+" of an unknown organization", err, refusal.NotFound)
			if there.Error() != nowhere.Error() {
				t.Errorf("%s: foreign is %q, unknown is %q", c.name, there, nowhere)
			}
		}
		reads := map[string]func(a Actor, org, id string) error{
			"Wallet":     func(a Actor, org, id string) error { _, err := h.Wallet(a, org, id); return err },
			"Delegation": func(a Actor, org, id string) error { _, err := h.Delegation(a, org, id); return err },
			"Ceremony":   func(a Actor, org, id string) error { _, err := h.Ceremony(a, org, id); return err },
			"Documents": func(a Actor, org, id string) error {
				_, err := h.Documents(a, org, &DocumentName{KindRules, id})
				return err
			},
			"FetchShare": func(a Actor, org, id string) error {
				_, err := h.FetchShare(context.Background(), a, org, id)
				return err
			},
		}
		for name, read := range reads {
			for _, id := range []string{solWallet, "dlg_1"} {
				there := wantRefusal(t, name, read(look(site.globex, everybody...), site.acme, id), refusal.NotFound)
				nowhere := wantRefusal(t, name, read(look(site.globex, everybody...), "org_nowhere", id), refusal.NotFound)
				// In one's own organization: what is another's is what is not there.
				theirs := wantRefusal(t, name, read(look(site.globex, everybody...), site.globex, id), refusal.NotFound)
				none := wantRefusal(t, name, read(look(site.globex, everybody...), site.globex, "nothing"), refusal.NotFound)
				if there.Error() != nowhere.Error() || theirs.Error() != none.Error() {
					t.Errorf("%s %s: foreign %q, unknown %q; another's %q, none %q", name, id, there, nowhere, theirs, none)
				}
			}
			wantRefusal(t, name+" by nobody", read(look(site.acme), site.acme, solWallet), refusal.QuorumMissing)
		}
	})
}

// In an organization of one's own, ids of another one are unknown.
func TestForeignIDsAreUnknown(t *testing.T) {
	h := newFullHouse(t)
	gina := []holder{site.gina.holder}
	foreignOwner := NewWallet{RequestID: "w", Organization: site.globex, Owner: site.dana.id, Chain: cluster, Name: "w"}
	_, err := h.CreateWallet(context.Background(), stamped(site.globex, foreignOwner, site.globexRoot...), foreignOwner)
	wantRefusal(t, "a wallet for a foreign user", err, refusal.NotFound)
	d := newDelegation("d", solWallet)
	d.Organization = site.globex
	_, err = h.CreateDelegation(context.Background(), stamped(site.globex, d, gina...), d)
	wantRefusal(t, "a delegation of a foreign wallet", err, refusal.NotFound)
	_, err = h.RevokeDelegation(context.Background(), stamped(site.globex, revocation{"r", "dlg_1"}, site.globexRoot...), "r", site.globex, "dlg_1")
	wantRefusal(t, "revoking a foreign delegation", err, refusal.NotFound)
	r := NewReceipt{RequestID: "c", Organization: site.globex, Wallet: pendingWallet, SHA256: make([]byte, 32)}
	_, err = h.ConfirmShare(context.Background(), stamped(site.globex, r, gina...), r)
	wantRefusal(t, "confirming a foreign share", err, refusal.NotFound)
	m := newDelegation("e", ethWallet)
	m.DelegatedUser = site.gina.id
	_, err = h.CreateDelegation(context.Background(), stamped(site.acme, m, site.dana.holder), m)
	wantRefusal(t, "delegating to a foreign user", err, refusal.NotFound)
}

// Operators have no say inside an organization, root members none over the
// appliance, whatever organization their stamps name.
func TestAuthorityEndsAtTheOrganization(t *testing.T) {
	h := newFullHouse(t)
	m := NewOrganization{RequestID: "o", Name: "o", Root: []NewCredential{site.root[0].NewCredential}, Quorum: 1}
	_, err := h.CreateOrganization(context.Background(), stamped(site.acme, m, site.operators...), m)
	wantRefusal(t, "operators' stamps for an organization", err, refusal.QuorumMissing)
	u := NewUser{RequestID: "u", Organization: site.acme, Name: "u", Kind: DelegatedUser}
	_, err = h.CreateUser(context.Background(), stamped("", u, site.root...), u)
	wantRefusal(t, "root's stamps for no organization", err, refusal.NotFound)
	if _, err := h.Wallet(look(site.acme, site.operators...), site.acme, solWallet); !refusal.Is(err, refusal.QuorumMissing) {
		t.Errorf("operators look into an organization: %v", err)
	}
	for _, c := range []struct {
		org   string
		h     holder
		known bool
	}{{"", site.operators[0], true}, {"", site.root[0], false}, {site.acme, site.root[2], true}, {site.acme, site.dana.holder, true},
		{site.acme, site.operators[0], false}, {site.acme, site.gina.holder, false}, {site.globex, site.gina.holder, true}, {"org_nowhere", site.root[0], false}} {
		if known := h.KnownCredential(c.org, c.h.key.Public()); known != c.known {
			t.Errorf("credential %s is known to %q: %v, want %v", c.h.Name, c.org, known, c.known)
		}
	}
}

// A delegated user has no credential; had a record one, it would still authorize nothing.
func TestDelegatedUserAuthorizesNothing(t *testing.T) {
	intruder := newHolder(credential.ForUser, "intruder")
	h := newHouse(t, withWallet, withEther, withPending, withDelegations, idle, func(h *house) {
		h.put(func(tx *vault.Tx) error {
			u := &user{V: recordVersion, ID: "usr_bad", Organization: site.acme, Name: "bad", Kind: DelegatedUser, CreatedAt: began,
				Credentials: []registered{{ID: intruder.PublicKey.ID(), Name: "bad", Algorithm: string(intruder.PublicKey.Algorithm), PublicKey: intruder.PublicKey.Bytes}}}
			k := key{}
			err := tx.With(vault.TypeKey, "key_"+ethWallet, func(b []byte) error { return decodeRecord(b, &k) })
			w := wallet{}
			err = errors.Join(err, tx.With(vault.TypeWallet, ethWallet, func(b []byte) error { return decodeRecord(b, &w) }))
			w.Owner, k.Owner = u.ID, u.ID // even as the owner
			return errors.Join(err, store(tx, vault.TypeKey, k.ID, &k), store(tx, vault.TypeUser, u.ID, u), store(tx, vault.TypeWallet, w.ID, &w))
		})
	})
	h.unchanged("a delegated user's acts", func() {
		for _, c := range acts() {
			_, err := c.do(h, c.org, []holder{intruder}, "id", 1)
			wantRefusal(t, c.name, err, refusal.QuorumMissing)
		}
		_, err := h.Wallet(look(site.acme, intruder), site.acme, solWallet)
		wantRefusal(t, "Wallet", err, refusal.QuorumMissing)
		_, err = h.Delegation(look(site.acme, intruder), site.acme, "dlg_1")
		wantRefusal(t, "Delegation", err, refusal.QuorumMissing)
		_, err = h.FetchShare(context.Background(), look(site.acme, intruder), site.acme, ethWallet)
		wantRefusal(t, "FetchShare", err, refusal.QuorumMissing)
		if known := h.KnownCredential(site.acme, intruder.key.Public()); !known {
			t.Error("its credential is not known, so it could not even sign")
		}
	})
}

// An act whose transaction fails leaves nothing: not on disk, not in memory, and
// its id is free.
func TestFailedActLeavesNothing(t *testing.T) {
	h := newFullHouse(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	u := NewUser{RequestID: "u", Organization: site.acme, Name: "u", Kind: DelegatedUser}
	h.unchanged("an act that was called off", func() {
		if _, err := h.CreateUser(ctx, stamped(site.acme, u, site.root...), u); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context.Canceled", err)
		}
	})
	h.cfg.Vault.Seal()
	if _, err := h.CreateUser(context.Background(), stamped(site.acme, u, site.root...), u); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("error %v, want ErrSealed", err)
	}
	if err := h.cfg.Vault.Unseal(context.Background(), sealers()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.CreateUser(context.Background(), stamped(site.acme, u, site.root...), u); err != nil {
		t.Error(err)
	}
}
