package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	sol "github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation/model"
	"github.com/sigild/sigild/internal/testvendor"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

var lifeSeed = flag.Uint64("seed", 0, "repeat this one life of TestCampaignLivesOfDaemons")

// Lives of delegations in real daemons that are killed, against the model: two in make
// test, fifty with CAMPAIGN=1. The same model is held against ten thousand lives within
// one process (delegation/model_test.go), where a life that differs is also shortened.
func TestCampaignLivesOfDaemons(t *testing.T) {
	becomeScratch(t)
	n := newLifeNature(t)
	first, lives, moves := uint64(9), 2, 40
	if os.Getenv("CAMPAIGN") != "" {
		first, lives, moves = uint64(time.Now().Unix()), 50, 40
	}
	if *lifeSeed != 0 {
		first, lives, moves = *lifeSeed, 1, 40
	}
	tally := model.NewTally()
	for seed := first; seed < first+uint64(lives); seed++ {
		if err := n.live(t, seed, moves, tally); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("seeds from %d: %+v", first, *tally)
	if *lifeSeed == 0 && (tally.Signed < lives/2 || tally.Cuts < lives/2 || tally.Done < 5*lives) {
		t.Errorf("%d signatures, %d kills within acts, %d acts done in %d lives: they reach too little", tally.Signed, tally.Cuts, tally.Done, lives)
	}
}

// lifeNature is what all daemons of these lives begin with: an organization of three
// root members whose user Dana owns two wallets, and a vendor with two wallets of its own.
type lifeNature struct {
	place
	t            *testing.T
	people       map[model.Person]*credential.PrivateKey
	recipient    *age.X25519Identity
	organization string
	owner        string
	bots         [model.Users]string
	own          []string
	webhook      string
	encrypt      *rsa.PublicKey
	stray        *rsa.PrivateKey
	vendor       [model.VendorWallets + 1]mpctest.Set
}

func newLifeNature(t *testing.T) *lifeNature {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	n := &lifeNature{place: place{dir}, t: t, people: map[model.Person]*credential.PrivateKey{}}
	if err := n.addToken(); err != nil {
		t.Fatal(err)
	}
	for person, name := range map[model.Person]string{model.Otto: "otto", model.Olga: "olga"} {
		n.mustCtl(t, "credential", "create", "--name", name, "--out", name)
		if n.people[person], err = credential.LoadKey(n.path(name + ".key")); err != nil {
			t.Fatal(err)
		}
	}
	n.mustCtl(t, "init", "--operator", "otto.json", "--operator", "olga.json", "--quorum", "2")
	if n.recipient, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	if n.stray, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	for i := range n.vendor {
		n.vendor[i] = mpctest.Keygen(t, mpc.KeygenRequest{SetID: fmt.Sprint("vendor-", i), Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2})
	}
	d, err := n.start()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.settle(), d.stop()); err != nil {
		t.Fatalf("%v\n%s", err, d.log)
	}
	return n
}

// settle makes the organization and all that lives begin with.
func (n *lifeNature) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	c, err := client.Dial(n.path("admin.sock"))
	if err != nil {
		return err
	}
	defer c.Close()
	register := func(p model.Person, purpose credential.Purpose) (out *sigilv1.NewCredential) {
		var e error
		n.people[p], out, e = newCredential(purpose, "key")
		err = errors.Join(err, e)
		return out
	}
	root := []*sigilv1.NewCredential{register(model.Rhea, credential.ForOrganizationRoot), register(model.Rolf, credential.ForOrganizationRoot), register(model.Ruth, credential.ForOrganizationRoot)}
	dana := []*sigilv1.NewCredential{register(model.Dana, credential.ForUser), register(model.DanaSecond, credential.ForUser)}
	erin := []*sigilv1.NewCredential{register(model.Erin, credential.ForUser)}
	register(model.Stranger, credential.ForUser)
	register(model.Gene, credential.ForOrganizationRoot)
	if err != nil {
		return err
	}
	made, err := c.WithStamps("", n.people[model.Otto], n.people[model.Olga]).Organizations().CreateOrganization(ctx, &sigilv1.CreateOrganizationRequest{
		RequestId: "organization", Name: "Acme", RootCredentials: root, RootQuorum: 2,
	})
	if err != nil {
		return err
	}
	n.organization = made.GetOrganizationId()
	quorum, owner := c.WithStamps(n.organization, n.people[model.Rhea], n.people[model.Rolf]), c.WithStamps(n.organization, n.people[model.Dana])
	enlist := func(name string, kind sigilv1.UserKind, creds []*sigilv1.NewCredential, first *credential.PrivateKey) (string, error) {
		r := &sigilv1.CreateUserRequest{RequestId: name, OrganizationId: n.organization, Name: name, Kind: kind, Credentials: creds}
		if first != nil {
			recipient := n.recipient.Recipient().String()
			signature, err := credential.SignRecipient(first, recipient)
			if err != nil {
				return "", err
			}
			r.ShareRecipient, r.ShareRecipientSignature = &recipient, signature
		}
		out, err := quorum.Users().CreateUser(ctx, r)
		return out.GetUserId(), err
	}
	if n.owner, err = enlist("dana", sigilv1.UserKind_USER_KIND_END_USER, dana, n.people[model.Dana]); err != nil {
		return err
	}
	if _, err = enlist("erin", sigilv1.UserKind_USER_KIND_END_USER, erin, n.people[model.Erin]); err != nil {
		return err
	}
	for i, p := range []model.Person{model.Bot0, model.Bot1} {
		creds := []*sigilv1.NewCredential{register(p, credential.ForDelegatedUser)}
		if n.bots[i], err = enlist(fmt.Sprint("bot-", i), sigilv1.UserKind_USER_KIND_DELEGATED_USER, creds, nil); err != nil {
			return err
		}
	}
	for i := range model.OwnWallets {
		id := fmt.Sprint("wallet-", i)
		w, err := quorum.Wallets().CreateWallet(ctx, &sigilv1.CreateWalletRequest{RequestId: id, OrganizationId: n.organization, OwnerUserId: n.owner, Chain: cluster, Name: id})
		if err != nil {
			return err
		}
		if err := awaitCeremony(owner, n.organization, w.GetCeremonyId()); err != nil {
			return err
		}
		share, err := owner.Wallets().FetchShare(ctx, &sigilv1.FetchShareRequest{OrganizationId: n.organization, WalletId: w.GetWalletId()})
		if err != nil {
			return err
		}
		sum := sha256.Sum256(share.GetAgeCiphertext())
		if _, err := owner.Wallets().ConfirmShare(ctx, &sigilv1.ConfirmShareRequest{RequestId: "receipt-" + id, OrganizationId: n.organization, WalletId: w.GetWalletId(), CiphertextSha256: sum[:]}); err != nil {
			return err
		}
		n.own = append(n.own, w.GetWalletId())
	}
	hook, err := quorum.Deliveries().RegisterWebhook(ctx, &sigilv1.RegisterWebhookRequest{
		RequestId: "webhook", OrganizationId: n.organization, EnvironmentId: vendorEnvironment, Secrets: [][]byte{[]byte(vendorSecret)},
	})
	if err != nil {
		return err
	}
	n.webhook = hook.GetWebhookId()
	block, _ := pem.Decode([]byte(hook.GetKeys()[0].GetPublicKeyPem()))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	n.encrypt = public.(*rsa.PublicKey)
	return nil
}

func (n *lifeNature) vendorAddress(i int) string { return sol.Address([32]byte(n.vendor[i].PublicKey)) }

func (n *lifeNature) opened(ciphertext []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(ciphertext), n.recipient)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// copied is a place with a copy of the appliance, and with a unit for the vendor's program.
func (n *lifeNature) copied() (p place, err error) {
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		return p, err
	}
	p = place{dir}
	t, err := makeTemplate()
	if err != nil {
		return p, err
	}
	if err := errors.Join(copyToken(n.path("token"), p.path("token")), copyTree(n.path("state"), p.path("state")), copyFile(n.path("store.pin"), p.path("store.pin")), p.configure(t.token)); err != nil {
		return p, err
	}
	service := testvendor.Service{Wallets: map[string]testvendor.Wallet{}}
	for i := range model.VendorWallets {
		service.Wallets[fmt.Sprint("vendor-", i)] = testvendor.Wallet{Set: n.vendor[i].ShareSet, Server: n.vendor[i].Shares(n.t, mpc.Server)[0]}
	}
	program := filepath.Join(base, "bin", "vendor")
	b, err := os.ReadFile(program)
	if err != nil {
		return p, err
	}
	config, err := os.ReadFile(p.path("sigild.yaml"))
	if err != nil {
		return p, err
	}
	return p, errors.Join(
		service.Save(p.path("vendor.json")),
		os.WriteFile(p.path("helper.yaml"), fmt.Appendf(nil, "program: %s\nsha256: %x\nargs: [%s]\ntimeout: 60s\ncallers: [%d]\n", program, sha256.Sum256(b), p.path("vendor.json"), os.Geteuid()), 0o600),
		os.WriteFile(p.path("sigild.yaml"), fmt.Appendf(config, "vendor_helper: {socket: %s, timeout: 60s}\n", p.path("helper.sock")), 0o600),
	)
}

// live plays one life on a daemon of its own.
func (n *lifeNature) live(t *testing.T, seed uint64, moves int, tally *model.Tally) (err error) {
	p, err := n.copied()
	if err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	unit := command(p.dir, "sigild", "helper", "--config", "helper.yaml", "--listen", "helper.sock")
	if err := startMortal(unit); err != nil {
		return err
	}
	defer func() {
		_ = unit.Process.Signal(syscall.SIGTERM)
		_ = unit.Wait()
	}()
	err = poll(time.Minute, func(context.Context) error { _, err := os.Stat(p.path("helper.sock")); return err })
	if err != nil {
		return err
	}
	w := &lifeWorld{place: p, lifeNature: n, chance: mathrand.New(mathrand.NewPCG(seed, 0)), wallets: append([]string{}, n.own...), signatures: map[int][]byte{}, bodies: map[string][]byte{}}
	if err := w.begin(); err != nil {
		return err
	}
	err = model.PlayOverSockets(w, model.Life(seed, moves), tally)
	err = errors.Join(err, w.client.Close(), w.daemon.stop())
	if err == nil {
		_, err = p.sigilctl("audit", "verify")
	}
	return err
}
