package signing_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// The parts are real: a SoftHSM token behind its worker (this test binary, started
// again), a vault on disk, its journal, delegation as the authority, the parties
// of mpc. What is made once is here: the token, and a store after `sigilctl init`
// with one organization and two users. Each test opens a copy of that store.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	if text := os.Getenv(childEnv); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if text := os.Getenv(signerEnv); text != "" {
		os.Exit(signerMain(text))
	}
	os.Exit(run(m))
}

// site is what all tests share.
var site struct {
	device     device
	checkpoint seal.KeyRef
	token      tokenSite
	pin        vault.Pin
	dir        string // of the store that tests copy
	// organization, owner and bot are ids in that store; root, dana and operator are keys.
	organization, owner, bot string
	root, dana, operator     *credential.PrivateKey
}

// device seals the store and signs its journal: a token or a TPM.
type device interface {
	seal.Sealer
	seal.Signer
	ID() string
	Close() error
}

// began is when the store of all tests was made.
var began = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "signing-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, "building the shared store:", err)
		return 1
	}
	defer site.device.Close()
	return m.Run()
}

func build(ctx context.Context, dir string) error {
	token, keys, err := newToken(ctx, dir)
	if err != nil {
		return err
	}
	site.device = token
	return settle(ctx, dir, keys.KEK, keys.Checkpoint, vault.Anchor{})
}

// newToken makes a token of its own and our keys in it.
func newToken(ctx context.Context, dir string) (*hsm.Provider, hsm.Keys, error) {
	tok, err := testhsm.Make(filepath.Join(dir, "token"))
	if err != nil {
		return nil, hsm.Keys{}, err
	}
	site.token = tokenSite{Module: tok.Module, Label: tok.Label, Serial: tok.Serial, PINFile: tok.PINFile, Dir: tok.Dir, Env: tok.Env}
	p, err := hsm.Open(ctx, site.token.config())
	if err != nil {
		return nil, hsm.Keys{}, err
	}
	keys, err := p.Provision(ctx)
	return p, keys, err
}

// tokenSite is where a token is, for this process and its children.
type tokenSite struct {
	Module, Label, Serial, PINFile, Dir string
	Env                                 []string
}

func (s tokenSite) config() hsm.Config {
	return hsm.Config{
		Module: s.Module, TokenLabel: s.Label, TokenSerial: s.Serial, PINFile: s.PINFile,
		LatchFile: filepath.Join(s.Dir, "latch"), EnvAllow: s.Env, CallTimeout: time.Minute,
	}
}

// settle makes the store of the site's device.
func settle(ctx context.Context, dir string, kek, checkpoint seal.KeyRef, anchor vault.Anchor) error {
	site.checkpoint, site.dir = checkpoint, filepath.Join(dir, "state")
	now := func() time.Time { return began }
	v, pin, err := vault.Create(ctx, vault.Config{Dir: site.dir, Now: now, Anchor: anchor},
		vault.KeyHolder{Sealer: site.device, ID: site.device.ID(), Ref: kek})
	if err != nil {
		return err
	}
	site.pin = pin
	return errors.Join(populate(ctx, v, now), v.Close())
}

// populate is the genesis and the acts that every test builds on.
func populate(ctx context.Context, v *vault.Vault, now func() time.Time) error {
	operator, err := newCredential(credential.ForOperator, "otto")
	if err != nil {
		return err
	}
	site.operator = operator.key
	_, j, err := delegation.Genesis(ctx, v, journal.Config{Signer: site.device, CheckpointKey: site.checkpoint, Now: now},
		[]delegation.NewCredential{operator.NewCredential}, 1, began)
	if err != nil {
		return err
	}
	d, err := delegation.Open(ctx, delegation.Config{Vault: v, Journal: j, Now: now})
	if err != nil {
		return err
	}
	defer d.Close()
	root, err := newCredential(credential.ForOrganizationRoot, "rhea")
	if err != nil {
		return err
	}
	org, err := d.CreateOrganization(ctx, actor("", "CreateOrganization", operator.key), delegation.NewOrganization{
		RequestID: "org", Name: "acme", Root: []delegation.NewCredential{root.NewCredential}, Quorum: 1,
	})
	if err != nil {
		return err
	}
	site.organization, site.root = org.OrganizationID, root.key
	dana, err := newCredential(credential.ForUser, "dana")
	if err != nil {
		return err
	}
	site.dana = dana.key
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	recipient := identity.Recipient().String()
	signature, err := credential.SignRecipient(dana.key, recipient)
	if err != nil {
		return err
	}
	owner, err := d.CreateUser(ctx, actor(site.organization, "CreateUser", root.key), delegation.NewUser{
		RequestID: "dana", Organization: site.organization, Name: "dana", Kind: delegation.EndUser,
		Credentials: []delegation.NewCredential{dana.NewCredential}, ShareRecipient: recipient, RecipientSignature: signature,
	})
	if err != nil {
		return err
	}
	bot, err := d.CreateUser(ctx, actor(site.organization, "CreateUser", root.key), delegation.NewUser{
		RequestID: "bot", Organization: site.organization, Name: "bot", Kind: delegation.DelegatedUser,
	})
	site.owner, site.bot = owner.UserID, bot.UserID
	return err
}

// holder is a private key with what registers its public half.
type holder struct {
	delegation.NewCredential
	key *credential.PrivateKey
}

func newCredential(p credential.Purpose, name string) (holder, error) {
	key, err := credential.GenerateKey(credential.Ed25519)
	if err != nil {
		return holder{}, err
	}
	proof, err := credential.NewProof(key, p, name)
	return holder{delegation.NewCredential{Name: name, PublicKey: key.Public(), Proof: proof}, key}, err
}

// actor is what the server makes of a call with these credentials' stamps.
func actor(org, method string, keys ...*credential.PrivateKey) delegation.Actor {
	a := delegation.Actor{Method: "/sigil.v1/" + method, Organization: org, Caller: caller}
	for _, k := range keys {
		a.Credentials = append(a.Credentials, k.Public())
	}
	return a
}

var caller = journal.Caller{UID: 1001, GID: 1001, PID: 4711}
