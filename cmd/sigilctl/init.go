package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/clock"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

func initCommand() *cobra.Command {
	var operators []string
	var quorum int
	var anchor string
	c := &cobra.Command{
		Use:   "init --operator FILE… --quorum M",
		Short: "Make the appliance: keys in the token, the store, its pin, the genesis entry",
		Long: `Makes the appliance, once, with the daemon stopped: an AES-256 key and a P-256
key inside the token, a fresh store sealed under the first, the pin file that
names the store from outside, the operators' public keys and the genesis entry.

Each --operator FILE is the public file that "sigilctl credential create" wrote;
its proof of possession is checked. Nothing that exists is touched.

--anchor says how an older copy of the whole store is noticed, for the life of the
store: by a counter in the TPM (nv), by replacing the token's sealing key with each
act that must not be undone (kek-roll; worth nothing for a token on the same disk),
or not at all (none). The pin file names it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			creds, err := readCredentials(credential.ForOperator, operators)
			if err != nil {
				return err
			}
			id, advice, err := initialize(cmd.Context(), cfg, creds, quorum, vault.AnchorKind(anchor))
			if err != nil {
				return fmt.Errorf("initializing: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "appliance  %s\nstore      %s\npin        %s\noperators  %d, quorum %d\n", id, cfg.StateDir, cfg.PinFile, len(creds), quorum)
			if advice != "" {
				fmt.Fprintln(cmd.OutOrStdout(), advice)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&operators, "operator", nil, "public `FILE` of an operator; repeat")
	c.Flags().IntVar(&quorum, "quorum", 0, "how many operators must stamp an act")
	c.Flags().StringVar(&anchor, "anchor", string(vault.AnchorNone), "nv, kek-roll or none")
	for _, f := range []string{"operator", "quorum"} {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
	return c
}

// readCredentials reads public files that were made for the purpose, each key once.
func readCredentials(purpose credential.Purpose, files []string) ([]delegation.NewCredential, error) {
	var out []delegation.NewCredential
	seen := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("reading %s file: %w", purpose, err)
		}
		p, err := credential.ParsePublicFile(b)
		if err != nil {
			return nil, fmt.Errorf("reading %s file %s: %w", purpose, f, err)
		}
		if p.Purpose != purpose {
			return nil, fmt.Errorf("reading %s file %s: it was made for purpose %q, not %q", purpose, f, p.Purpose, purpose)
		}
		if earlier, twice := seen[p.Key.ID()]; twice {
			return nil, fmt.Errorf("reading %s file %s: it holds the same key as %s", purpose, f, earlier)
		}
		seen[p.Key.ID()] = f
		out = append(out, delegation.NewCredential{Name: p.Name, PublicKey: p.Key, Proof: p.Proof, Party: p.Party})
	}
	return out, nil
}

// initialize builds the state beside its final place and gives it its names at
// the end: pin first, store last. A crash before leaves nothing that the daemon
// takes for a store.
func initialize(ctx context.Context, cfg config.Config, operators []delegation.NewCredential, quorum int, anchor vault.AnchorKind) (id, advice string, err error) {
	switch anchor {
	case vault.AnchorNone, vault.AnchorNV, vault.AnchorKEKRoll:
	default:
		return "", "", fmt.Errorf("--anchor must be nv, kek-roll or none, not %q", anchor)
	}
	if quorum < 1 || quorum > len(operators) {
		return "", "", fmt.Errorf("--quorum must be 1 to %d, the number of operators", len(operators))
	}
	if err := refuseExisting(cfg); err != nil {
		return "", "", err
	}
	if err := prepareDirs(cfg); err != nil {
		return "", "", err
	}
	lock, err := lockInit(cfg.StateDir)
	if err != nil {
		return "", "", err
	}
	defer lock.Close()
	if err := refuseExisting(cfg); err != nil { // by an init that was faster
		return "", "", err
	}
	scratch, err := os.MkdirTemp(cfg.StateDir, ".init-")
	if err != nil {
		return "", "", fmt.Errorf("making a scratch directory: %w", err)
	}
	defer func() {
		if e := os.RemoveAll(scratch); e != nil && err == nil {
			err = fmt.Errorf("removing the scratch directory: %w", e)
		}
	}()
	provider, keys, advice, err := cfg.Provision(ctx)
	if err != nil {
		return "", "", err
	}
	defer provider.Close()
	if err := config.StirRandomness(ctx, provider); err != nil {
		return "", "", err
	}
	anchored, err := makeAnchor(ctx, provider, anchor)
	if err != nil {
		return "", "", err
	}
	pin, id, err := buildStore(ctx, scratch, provider, keys, anchored, operators, quorum)
	if err != nil {
		return "", "", err
	}
	text, err := pin.MarshalText()
	if err != nil {
		return "", "", err
	}
	if err := writeDurably(cfg.PinFile, text); err != nil {
		return "", "", fmt.Errorf("writing the pin: %w", err)
	}
	if err := os.Link(filepath.Join(scratch, vault.FileName), filepath.Join(cfg.StateDir, vault.FileName)); err != nil {
		return "", "", fmt.Errorf("putting the store in place: %w", err)
	}
	if err := syncDir(cfg.StateDir); err != nil {
		return "", "", err
	}
	return id, advice, nil
}

// refuseExisting makes init unrepeatable.
func refuseExisting(cfg config.Config) error {
	store := filepath.Join(cfg.StateDir, vault.FileName)
	for _, old := range []struct{ path, hint string }{
		{store, "this host has an appliance already; nothing was changed"},
		{cfg.PinFile, "there is a pin but no store beside it; if an earlier init was interrupted, move the pin away and repeat"},
	} {
		if _, err := os.Lstat(old.path); err == nil {
			return hinted{fmt.Errorf("%s exists", old.path), old.hint}
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("looking for earlier state: %w", err)
		}
	}
	return nil
}

// prepareDirs finds out what would stop us before keys are made in the token.
func prepareDirs(cfg config.Config) error {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	st, err := os.Stat(cfg.StateDir)
	if err != nil {
		return fmt.Errorf("looking at the state directory: %w", err)
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return hinted{fmt.Errorf("the state directory %s is open to others (mode %#o)", cfg.StateDir, mode), "chmod 0700 " + cfg.StateDir}
	}
	if err := unix.Access(filepath.Dir(cfg.PinFile), unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("looking where the pin goes: %w", &fs.PathError{Op: "access", Path: filepath.Dir(cfg.PinFile), Err: err})
	}
	return nil
}

// lockInit keeps a second init out, before it logs in to the token: the lock is on
// the directory itself and ends with the file or the process.
func lockInit(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = d.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, hinted{fmt.Errorf("another init works in %s", dir), "wait for its end; it is done once"}
		}
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	return d, nil
}

// makeAnchor makes what the store will be anchored by.
func makeAnchor(ctx context.Context, p config.Device, kind vault.AnchorKind) (vault.Anchor, error) {
	switch kind {
	case vault.AnchorNV:
		t, ok := p.(interface {
			MakeCounter(context.Context) (seal.KeyRef, error)
		})
		if !ok {
			return vault.Anchor{}, hinted{fmt.Errorf("%s has no counters", p.ID()), "--anchor nv wants a TPM; a token can be anchored by kek-roll"}
		}
		ref, err := t.MakeCounter(ctx)
		return vault.Anchor{Provider: p.ID(), Counter: ref}, err
	case vault.AnchorKEKRoll:
		if _, ok := p.(seal.Roller); !ok {
			return vault.Anchor{}, hinted{fmt.Errorf("%s can't replace its sealing key", p.ID()), "--anchor kek-roll wants a PKCS#11 token; a TPM can be anchored by nv"}
		}
		return vault.Anchor{Provider: p.ID()}, nil
	}
	return vault.Anchor{}, nil
}

func buildStore(ctx context.Context, dir string, p config.Device, keys config.Keys, anchor vault.Anchor, operators []delegation.NewCredential, quorum int) (pin vault.Pin, id string, err error) {
	v, pin, err := vault.Create(ctx, vault.Config{Dir: dir, Random: config.Randomness(p), Anchor: anchor}, vault.KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		return pin, "", err
	}
	defer func() {
		if e := v.Close(); e != nil && err == nil {
			err = fmt.Errorf("closing the new store: %w", e)
		}
	}()
	id, j, err := delegation.Genesis(ctx, v, journal.Config{Signer: p, CheckpointKey: keys.Checkpoint}, operators, quorum, time.Now())
	if err != nil {
		return pin, "", err
	}
	// Whoever makes the store looks at the clock: it is confirmed for this boot.
	err = v.UpdateAlone(ctx, func(tx *vault.Tx) error { return clock.Keep(tx, clock.Init(clock.Host{})) })
	return pin, id, errors.Join(err, j.Close(ctx))
}

// writeDurably makes path with text, 0644, and fsyncs file and directory. It never overwrites.
func writeDurably(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("syncing directory: %w", err)
	}
	return nil
}
