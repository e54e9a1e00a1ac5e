package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/internal/testhsm"
)

// scene is what the play has built so far.
type scene struct {
	dir    string
	token  testhsm.Token
	daemon *daemon
	app    *client.Client
	admin  *client.Client

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
func play(ctx context.Context, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	s := &scene{dir: dir}
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
  pkcs11:
    module: %[3]s
    token_label: %[4]s
    pin_file: %[5]s
    env: {SOFTHSM2_CONF: %[6]s/softhsm2.conf}
pre_parameters: {target: 5}
`, s.dir, os.Geteuid(), s.token.Module, s.token.Label, s.token.PINFile, s.token.Dir)
}
