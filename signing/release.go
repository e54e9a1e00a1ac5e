package signing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// release is steps 8 to 10: it redeems the approval, and whatever happens, the
// outcome is journaled before the caller hears of it.
func (s *Service) release(ctx context.Context, a *approved) (*Result, error) {
	if err := a.redeem(); err != nil {
		return nil, err
	}
	defer a.leave()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()

	// Steps 8 and 9.
	sig, err := s.produce(ctx, a)
	if err != nil {
		return nil, s.failed(ctx, a, err)
	}

	// Step 10: assemble, compare with the view, journal, reply.
	result, err := s.finish(a.request, a.standing, a.decoded, sig, a.rule, a.sequence)
	if err != nil {
		return nil, s.failed(ctx, a, err)
	}
	e := s.entry(journal.KindSigned, a.request, a.standing)
	e.ApprovedSeq, e.Digest, e.Answer = a.sequence, digestOf(a.decoded), result.Signature
	sum := sha256.Sum256(result.Signature)
	e.SignatureHash = hex.EncodeToString(sum[:])
	if err := s.append(ctx, e); err != nil {
		return nil, fmt.Errorf("journaling the signature: %w", err)
	}
	if isOrder(a.rule) && s.full(a.standing, a.rule) {
		if err := s.authority.Filled(ctx, a.standing.Delegation, a.rule); err != nil {
			s.log.ErrorContext(ctx, "removing a filled order; it allows nothing any more", "order", a.rule, "error", err)
		}
	}
	s.log.InfoContext(ctx, "signed", "wallet", a.standing.Wallet.ID, "delegation", a.standing.Delegation, "request", a.request.ID, "rule", a.rule, "sequence", a.sequence)
	return result, nil
}

// produce is steps 8 and 9. The signature comes back verified.
func (s *Service) produce(ctx context.Context, a *approved) ([]byte, error) {
	switch {
	case a.standing.Credential != nil:
		return s.signBody(ctx, a)
	case a.standing.Vendor != nil && a.standing.Peer == "":
		return s.signVendor(ctx, a)
	}
	sig, err := s.ceremony(ctx, a)
	if err != nil {
		return nil, err
	}
	return sig.Bytes(), nil
}

// ceremony is steps 8 and 9. The signature comes back verified against the pinned
// public key.
func (s *Service) ceremony(ctx context.Context, a *approved) (sig mpc.Signature, err error) {
	before := func() error { return s.mayRelease(a) }
	if a.presignature != nil {
		// Its parties have copies of their shares: nothing is lent.
		return a.presignature.Sign(ctx, a.decoded.Sign, before)
	}
	// Step 8: the vault lends the shares; they are wiped when the call ends.
	err = s.lend(ctx, a, func(ctx context.Context, shares [][]byte, apiKey []byte) (err error) {
		// Step 9: run the parties, here and elsewhere; look once more before the last share leaves.
		joint, done, err := s.join(ctx, a, apiKey)
		if err != nil {
			return err
		}
		sig, err = mpc.Sign(ctx, mpc.SignRequest{
			Set: a.standing.Set, Shares: shares, Input: a.decoded.Sign, Path: a.standing.Wallet.Path, BeforeRelease: before, With: joint,
		})
		done(err)
		return err
	})
	return sig, err
}

// lend is step 8. apiKey is what another sigild, which handed the share over, knows us
// by; nil for shares of our own.
func (s *Service) lend(ctx context.Context, a *approved, use func(ctx context.Context, shares [][]byte, apiKey []byte) error) error {
	if a.standing.Vendor == nil {
		return s.vault.WithAll(ctx, vault.TypeShare, a.standing.ShareIDs, func(shares [][]byte) error { return use(ctx, shares, nil) })
	}
	if s.cfg.Vendors == nil {
		return errors.New("lending what was handed over: no room holds deliveries")
	}
	return s.cfg.Vendors.LendShare(ctx, *a.standing.Vendor, a.standing.Delegation, func(ctx context.Context, share, apiKey []byte) error {
		return use(ctx, [][]byte{share}, apiKey)
	})
}

// mayRelease is the last look of step 9.
func (s *Service) mayRelease(a *approved) error {
	if s.testOnlyBeforeRelease != nil {
		s.testOnlyBeforeRelease()
	}
	if s.vault.Sealed() {
		return vault.ErrSealed
	}
	err := s.stillServes(a.standing)
	if errors.Is(err, errMoved) {
		return refusal.New(refusal.NotActive, "the delegation or the policies changed while signing; ask again")
	}
	if err == nil {
		a.released.Store(true)
	}
	return err
}

// failed journals a signature that did not come to be. The charge is given back
// only when the last share provably never left: when the last look of step 9 was
// not taken, or said no.
func (s *Service) failed(ctx context.Context, a *approved, cause error) error {
	var m *mpc.Error
	sent := a.released.Load() || errors.As(cause, &m) && m.LastShareSent
	answer := s.failure(a, cause, sent)
	e := s.entry(journal.KindFailed, a.request, a.standing)
	e.ApprovedSeq, e.Digest, e.Reason = a.sequence, digestOf(a.decoded), "the threshold signature failed"
	var no *refusal.Error
	if errors.As(answer, &no) {
		e.Outcome = string(no.Reason)
	}
	if !sent && !a.retried {
		e.Refund()
	}
	s.log.ErrorContext(ctx, "threshold signature failed", "wallet", a.standing.Wallet.ID, "delegation", a.standing.Delegation, "request", a.request.ID, "last_share_sent", sent, "error", cause)
	if m != nil && len(m.Culprits) > 0 {
		e.Note("culprits", fmt.Sprint(m.Culprits))
	}
	// Alone: a count that others of the same commit do not see would be lost.
	err := s.vault.UpdateAlone(context.WithoutCancel(ctx), func(tx *vault.Tx) error {
		if s.cfg.Failed != nil {
			if err := s.cfg.Failed(tx, a.standing.Wallet.Key, cause); err != nil {
				return err
			}
		}
		_, err := s.journal.Append(tx, e)
		return err
	})
	if err != nil {
		// The approval stands without an outcome: the next start journals
		// "outcome unknown" and the charge stays spent.
		s.log.ErrorContext(ctx, "journaling a failed signature", "error", err)
	}
	return answer
}

// failure is what the caller hears of a failed signature.
func (s *Service) failure(a *approved, cause error, sent bool) error {
	var no *refusal.Error
	switch _, ended := s.authority.Current(a.standing); {
	case errors.As(cause, &no):
		return no
	case refusedElsewhere(cause) != nil:
		return refusedElsewhere(cause)
	case sent:
		return refusal.New(refusal.OutcomeUnknown, "the signature failed after the last share left; ask again with the same request_id").Because(cause)
	case errors.As(ended, &no): // its shares may be gone, which is no fault of the ceremony
		return no
	case errors.Is(cause, vault.ErrSealed), errors.Is(cause, seal.ErrUnavailable):
		return fmt.Errorf("lending the shares: %w", cause)
	case a.retried:
		return refusal.New(refusal.OutcomeUnknown, "the threshold signature failed, and the outcome of an earlier try is unknown; ask again with the same request_id").Because(cause)
	}
	return refusal.New(refusal.CeremonyFailed, "the threshold signature failed; nothing was signed").Because(cause)
}

// append journals one entry after step 7. It does not follow the request's
// deadline: what happened must be written.
func (s *Service) append(ctx context.Context, e journal.Entry) error {
	return s.vault.Update(context.WithoutCancel(ctx), func(tx *vault.Tx) error {
		_, err := s.journal.Append(tx, e)
		return err
	})
}
