package delegation

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
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// The parts are real: a SoftHSM token behind its worker (this test binary, started
// again), a vault on disk, its journal, the parties of mpc. What is made once is
// here: the token, and a store after `sigilctl init`. Each test opens a copy of it.

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	if text := os.Getenv(childEnv); text != "" {
		os.Exit(childMain(text))
	}
	if text := os.Getenv(startEnv); text != "" {
		os.Exit(startMain(text))
	}
	os.Exit(run(m))
}

// site is what all tests share: a store with three operators (quorum 2) and two
// organizations. acme has three root members (quorum 2), two end users and a
// delegated user; globex has one root member and one end user.
var site struct {
	device    *hsm.Provider
	hsm       hsm.Config
	config    journal.Config // Now is the clock of the genesis
	kek       seal.KeyRef
	pin       vault.Pin
	dir       string // of the store that tests copy
	appliance string
	operators []holder

	acme, globex     string
	root, globexRoot []holder
	// dana owns wallets, erin owns none; gina is of globex.
	dana, erin, gina member
	// bot is a delegated user of acme.
	bot string
	// recipient opens what is encrypted to delegated users.
	recipient *age.X25519Identity
}

// member is an end user with what only the user has.
type member struct {
	holder
	id  string
	age *age.X25519Identity
}

// began is when the store of all tests was made.
var began = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "delegation-")
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
	tok, err := testhsm.Make(filepath.Join(dir, "token"))
	if err != nil {
		return err
	}
	site.hsm = hsm.Config{
		Module: tok.Module, TokenLabel: tok.Label, TokenSerial: tok.Serial, PINFile: tok.PINFile,
		LatchFile: filepath.Join(tok.Dir, "latch"), EnvAllow: tok.Env, CallTimeout: time.Minute,
	}
	if site.device, err = hsm.Open(ctx, site.hsm); err != nil {
		return err
	}
	keys, err := site.device.Provision(ctx)
	if err != nil {
		return err
	}
	now := func() time.Time { return began }
	site.kek, site.dir = keys.KEK, filepath.Join(dir, "state")
	site.config = journal.Config{Signer: site.device, CheckpointKey: keys.Checkpoint, Now: now}
	v, err := createVault(ctx, site.dir)
	if err != nil {
		return err
	}
	return errors.Join(populate(ctx, v, now), v.Close())
}

// createVault makes a fresh vault in dir.
func createVault(ctx context.Context, dir string) (v *vault.Vault, err error) {
	v, site.pin, err = vault.Create(ctx, vault.Config{Dir: dir, Now: site.config.Now},
		vault.KeyHolder{Sealer: site.device, ID: site.device.ID(), Ref: site.kek})
	return v, err
}

// populate is the genesis and the acts that every test builds on.
func populate(ctx context.Context, v *vault.Vault, now func() time.Time) (err error) {
	var registered []NewCredential
	for _, name := range []string{"otto", "olga", "omar"} {
		h := newHolder(credential.ForOperator, name)
		site.operators, registered = append(site.operators, h), append(registered, h.NewCredential)
	}
	var j *journal.Journal
	if site.appliance, j, err = Genesis(ctx, v, site.config, registered, 2, began); err != nil {
		return err
	}
	s, err := Open(ctx, Config{Vault: v, Journal: j, Now: now})
	if err != nil {
		return err
	}
	defer s.Close()
	organize := func(name string, quorum int, members ...string) (id string, root []holder) {
		n := NewOrganization{RequestID: name, Name: name, Quorum: quorum}
		for _, m := range members {
			h := newHolder(credential.ForOrganizationRoot, m)
			root, n.Root = append(root, h), append(n.Root, h.NewCredential)
		}
		made, e := s.CreateOrganization(ctx, stamped("", n, site.operators[0], site.operators[1]), n)
		err = errors.Join(err, e)
		return made.OrganizationID, root
	}
	site.acme, site.root = organize("acme", 2, "rhea", "rolf", "ruth")
	site.globex, site.globexRoot = organize("globex", 1, "gene")
	enlist := func(org, name string, root []holder) (m member) {
		var n NewUser
		m, n = newMember(org, name)
		made, e := s.CreateUser(ctx, stamped(org, n, root...), n)
		err = errors.Join(err, e)
		m.id = made.UserID
		return m
	}
	site.dana, site.erin = enlist(site.acme, "dana", site.root), enlist(site.acme, "erin", site.root)
	site.gina = enlist(site.globex, "gina", site.globexRoot)
	n := NewUser{RequestID: "bot", Organization: site.acme, Name: "bot", Kind: DelegatedUser}
	made, e := s.CreateUser(ctx, stamped(site.acme, n, site.root...), n)
	site.bot = made.UserID
	var e2 error
	site.recipient, e2 = age.GenerateX25519Identity()
	return errors.Join(err, e, e2)
}
