package delivery

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

func TestOneOfManyEqualDeliveriesIsStored(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	b := body(t, e.created(t, "ev-1", "w1", "", 1))
	var mu sync.Mutex
	count := map[Outcome]int{}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			outcome, err := h.send(e, b)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			count[outcome]++
		})
	}
	wg.Wait()
	if count[Stored] != 1 || count[Duplicate] != 15 {
		t.Errorf("outcomes %v, want one STORED", count)
	}
	if n := h.records(vault.TypeVendorShare, vault.TypeVendorAPIKey); n != 2 {
		t.Errorf("%d secrets are kept, want 2", n)
	}
}

// A revocation wins also when it comes while the created event is being opened.
func TestRevocationWhileTheEventIsOpened(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	created := body(t, e.created(t, "ev-1", "w1", "", 1))
	once := sync.OnceFunc(func() { h.want(e, revoked("ev-2", "w1", "", 1), Stored) })
	h.device.before = once
	if got, err := h.send(e, created); err != nil || got != Tombstoned {
		t.Errorf("got %s, %v, want TOMBSTONED", got, err)
	}
	if n := h.records(vault.TypeVendorShare, vault.TypeVendorAPIKey); n != 0 {
		t.Errorf("%d secrets are kept", n)
	}
}

func TestOneRequestMakesOneKey(t *testing.T) {
	h := newHouse(t)
	var mu sync.Mutex
	answers := map[string]int{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			out, err := h.RegisterWebhook(t.Context(), treasury, webhookFor("r1", testEnv))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answers[mustJSON(t, out)]++
		})
	}
	wg.Wait()
	if len(answers) != 1 || len(h.device.made) != 1 {
		t.Errorf("%d different answers, %d keys made", len(answers), len(h.device.made))
	}
}

func TestSealedStoreTakesNothing(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	created, gone := body(t, e.created(t, "ev-1", "w1", "", 1)), body(t, revoked("ev-2", "w1", "", 2))
	h.cfg.Vault.Seal()
	for _, b := range [][]byte{created, gone} {
		if got, err := h.send(e, b); !errors.Is(err, vault.ErrSealed) || got != "" {
			t.Errorf("got %q, %v, want ErrSealed", got, err)
		}
	}
	if w := h.book.wallet(e.id, "w1"); len(w.Sets)+len(w.Revoked) != 0 {
		t.Errorf("the memory holds what the store does not: %+v", w)
	}
}

// A wallet whose memory of revocations is full errs on the side of ending.
func TestWalletWithTooManyShareSets(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	h.want(e, e.created(t, "ev-1", "w1", "mine", 1), Stored)
	w := h.book.wallet(e.id, "w1").clone()
	for i := range maxSets {
		w.Revoked[numbered("gone", i)] = testTime.Add(-24 * time.Hour)
		if i > 0 {
			w.Sets[numbered("set", i)] = material{ID: numbered("vdl", i), Status: Revoked}
		}
	}
	h.book.wallets[w.key()] = w
	full := body(t, e.created(t, "ev-2", "w1", "one-more", 1))
	_, err := h.send(e, full)
	wantReason(t, "one share set more", err, refusal.RequestInvalid)
	h.want(e, revoked("ev-3", "w1", "another", 2), Stored)
	if got := h.book.wallet(e.id, "w1").Sets["mine"].Status; got != Revoked {
		t.Errorf("the set is %s, want it ended by a revocation that found no room", got)
	}
}

// A store that moved to another device can't open what was encrypted to the old one.
func TestKeyInAnotherDevice(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	created := body(t, e.created(t, "ev-1", "w1", "", 1))
	h.Service.cfg.DeviceID = "pkcs11:elsewhere"
	if got, err := h.send(e, created); !errors.Is(err, seal.ErrUnavailable) || refusal.Is(err, refusal.DeliveryInvalid) {
		t.Errorf("got %q, %v, want ErrUnavailable", got, err)
	}
}

// A key that was destroyed in the token opens nothing; those beside it still do.
func TestRetiredKey(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	old := body(t, e.created(t, "ev-1", "w1", "", 1))
	out, err := h.RegisterWebhook(t.Context(), treasury, webhookFor("next", testEnv))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.device.DestroyRSA(t.Context(), out.Keys[1].Ref); err != nil {
		t.Fatal(err)
	}
	if got, err := h.send(e, old); !errors.Is(err, seal.ErrUnavailable) || refusal.Is(err, refusal.DeliveryInvalid) {
		t.Errorf("encrypted to the retired key: %q, %v, want ErrUnavailable", got, err)
	}
	e.public = publicOf(t, out.Keys[0])
	h.want(e, e.created(t, "ev-2", "w1", "", 1), Stored)
}
