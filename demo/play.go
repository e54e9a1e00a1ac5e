package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/internal/testtpm"
)

// scene is what the play has built so far.
type scene struct {
	dir string
	// token or emulator is the sealing device; srkName pins the latter's SRK after init.
	token    testhsm.Token
	emulator *testtpm.TPM
	srkName  string
	daemon   *daemon
	app      *client.Client
	admin    *client.Client

	operators []*credential.PrivateKey
	root      *credential.PrivateKey
	user      *credential.PrivateKey
	userAge   *age.X25519Identity
	botAge    *age.X25519Identity

	organization, owner, bot string
	eth, sol                 *account
	// short is a delegation on the Solana wallet that ends within seconds.
	short *account
	// last is the request id of a signed request, for the last step.
	last string
}

// account is a wallet with what a delegate needs to sign for it.
type account struct {
	wallet, delegation, address string
	publicKey                   []byte
	apiKey                      []byte
	expires                     time.Time
}

// play runs the eight steps as the scratch user that owns everything.
func play(ctx context.Context, dir, device string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	s := &scene{dir: dir}
	if device == "tpm" {
		if s.emulator, err = testtpm.Make(filepath.Join(dir, "tpm")); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.emulator.Close()) }()
	}
	defer func() {
		if s.daemon != nil && err != nil {
			_ = s.daemon.kill() // the story ended early; its log says why
			if text, e := os.ReadFile(filepath.Join(dir, "sigild.log")); e == nil {
				fmt.Printf("\nsigild's log:\n%s\n", text)
			}
		}
	}()
	start := time.Now()
	for _, part := range []func(context.Context) error{
		s.initialize, s.populate, s.delegate, s.sign, s.refuse, s.deliver, s.crash, s.audit,
	} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\nAll steps did what they said, in %s.\n", time.Since(start).Round(time.Second))
	return nil
}

// config is the whole configuration file of the play.
func (s *scene) config() string {
	return fmt.Sprintf(`state_dir: %[1]s/state
pin_file: %[1]s/store.pin
sockets:
  app:   {path: %[1]s/run/app.sock, mode: "0666"}
  admin: {path: %[1]s/run/admin.sock, mode: "0600"}
roles:
  app:      {uids: [%[2]d]}
  operator: {uids: [%[2]d]}
provider:
%[3]spre_parameters: {target: 5}
`, s.dir, os.Geteuid(), s.provider())
}

// provider is the section that names the sealing device.
func (s *scene) provider() string {
	if s.emulator != nil {
		return fmt.Sprintf(`  tpm:
    path: %s
    secret_file: %s/tpm-secret
    srk_name: "%s"
`, s.emulator.Path, s.dir, s.srkName)
	}
	return fmt.Sprintf(`  pkcs11:
    module: %s
    token_label: %s
    pin_file: %s
    env: {SOFTHSM2_CONF: %s/softhsm2.conf}
`, s.token.Module, s.token.Label, s.token.PINFile, s.token.Dir)
}

// writeConfig puts the configuration where both binaries look for it.
func (s *scene) writeConfig() error {
	return os.WriteFile(filepath.Join(s.dir, "sigild.yaml"), []byte(s.config()), 0o600)
}

// device makes the sealing device, and says what it is.
func (s *scene) device() (err error) {
	if s.emulator != nil {
		say("a TPM 2.0 in software (swtpm) listens on %s", s.emulator.Path)
		return os.WriteFile(filepath.Join(s.dir, "tpm-secret"), random(32), 0o400)
	}
	if s.token, err = testhsm.Make(filepath.Join(s.dir, "token")); err != nil {
		return err
	}
	say("made SoftHSM token %q, serial %s", s.token.Label, s.token.Serial)
	return nil
}

// pinSRK copies the TPM's storage root key out of what init said, as an operator does.
func (s *scene) pinSRK(said string) error {
	if s.emulator == nil {
		return nil
	}
	_, name, ok := strings.Cut(said, "srk_name: ")
	if !ok {
		return fmt.Errorf("init did not say the name of the SRK: %s", said)
	}
	s.srkName = strings.TrimSpace(name)
	return s.writeConfig()
}
