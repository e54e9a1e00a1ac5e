package tpm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/seal"
)

// A PIN can be guessed, so the TPM counts wrong ones, of everybody, and locks. A wrong
// one is therefore tried once: the latch (a file that holds over restarts) keeps all
// later calls from the TPM until a person clears it.

// checkLatch is [seal.ErrLatched] while a wrong PIN is latched.
func (p *Provider) checkLatch() error {
	if !p.form.pin {
		return nil
	}
	return seal.CheckLatch(p.latchFile)
}

// latch remembers a refused PIN and gives err back. An auth value is refused as a
// whole: whether PIN or outside secret is wrong the TPM does not say.
func (p *Provider) latch(ctx context.Context, err error) error {
	if !p.form.pin || !errors.Is(err, seal.ErrAuth) {
		return err
	}
	l := seal.Latch{
		Version: seal.LatchVersion, Time: time.Now().UTC().Truncate(time.Second), Provider: "tpm2", TokenLabel: p.id, Error: "TPM_RC_AUTH_FAIL",
	}
	if e := l.Write(p.latchFile); e != nil {
		return fmt.Errorf("%w; and it could not be latched: %w", err, e)
	}
	p.log.ErrorContext(ctx, "the TPM refused the PIN or the outside secret; latched until sigilctl pin clear", "latch", p.latchFile)
	return err
}
