package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	_ "github.com/sigild/sigild/mpc/engines/frost" // the engine for Ed25519
	_ "github.com/sigild/sigild/mpc/engines/gg18"  // the engine for secp256k1
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/runner"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/server"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/stamping"
	"github.com/sigild/sigild/systemd"
	"github.com/sigild/sigild/tpm"
	"github.com/sigild/sigild/vault"
)

// keeper unseals the store and builds the rooms above it, in the order of their
// imports, and closes them in the other.
type keeper struct {
	cfg       config.Config
	log       *slog.Logger
	vault     *vault.Vault
	appliance *server.Appliance
	refusals  *journal.Refusals
	// mu guards what follows, and is held while rooms open or close.
	mu   sync.Mutex
	open *rooms // nil while sealed
	// seen is open for whoever must not wait for mu.
	seen atomic.Pointer[rooms]
	// held: an operator sealed it, and only the operators' quorum opens it.
	held bool
	// why it is sealed, for status and for the log, said once a change.
	why string
}

// rooms are the open parts.
type rooms struct {
	devices    *devices
	provider   config.Device // the main one of devices
	journal    *journal.Journal
	delegation *delegation.Service
	signing    *signing.Service
	// presignatures are empty unless a key wants some.
	presignatures *signing.Presignatures
	delivery      *delivery.Service
	stamping      *stamping.Service
	outbox        *outbox.Service
	store         *delegation.PreParamStore
	// policies says which policy files are in force; swapped, never modified.
	policies atomic.Pointer[policiesInForce]
	// lockout is what the TPM last said of wrong tries; nil without one.
	lockout atomic.Pointer[tpm.Lockout]
	// lacks are the protections that the device's keys haven't got.
	lacks []string
	// background runs checkpoints and the pool until cancel; done waits.
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// retryEvery is how often a sealed daemon tries again. A latched PIN costs no try.
const retryEvery = time.Second

// watch tries again while the store is sealed for a reason that may pass.
func (k *keeper) watch(ctx context.Context) error {
	wait := retryEvery
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		// A device that is away is asked less and less often.
		wait = min(2*wait, 30*time.Second)
		if k.try(ctx) || k.latched() {
			wait = retryEvery
		}
	}
}

// latched reports whether a wrong PIN, or a latch that can't be read, stands
// between us and the device. Looking is free.
func (k *keeper) latched() bool {
	_, latched, err := seal.ReadLatch(k.cfg.LatchFile())
	return latched || err != nil
}

// try unseals once, if there is anything to do, and reports whether it is open.
// Its failure is a state, not an end: the sockets answer SEALED.
func (k *keeper) try(ctx context.Context) (open bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open != nil || k.held {
		return k.open != nil
	}
	r, err := k.unseal(ctx)
	if err != nil {
		say := reason
		if k.cfg.Provider.TPM != nil {
			say = reasonTPM
		}
		k.sealed(say(err), err)
		return false
	}
	if why := r.delegation.SealedFor(); why != "" {
		k.holdLocked(r, why)
		return false
	}
	k.openLocked(r)
	return true
}

// openLocked lets calls through to the rooms.
func (k *keeper) openLocked(r *rooms) {
	k.open, k.held, k.why = r, false, ""
	k.seen.Store(r)
	k.appliance.Unsealed(server.Parts{
		Delegation: r.delegation, Signing: r.signing, Delivery: r.delivery, Stamping: r.stamping, Outbox: r.outbox, Journal: r.journal,
		Status: func() *sigilv1.GetStatusResponse { return k.show(r) },
		Close:  k.sealByOperator,
	})
	k.log.Info("unsealed", "appliance", r.delegation.ApplianceID(), "provider", r.provider.ID())
	k.tellLocked()
}

// sealed says why the store stays sealed, once a change.
func (k *keeper) sealed(why string, err error) {
	k.appliance.Sealed(why)
	if why != k.why {
		k.why = why
		k.log.Error("the store stays sealed", "why", why, "error", err)
		k.tellLocked()
	}
}

// sealByOperator closes the rooms after an operator's Seal was journaled.
func (k *keeper) sealByOperator(context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == nil {
		return nil
	}
	r := k.open
	return k.holdLocked(r, r.delegation.SealedFor())
}

// holdLocked closes open rooms, wipes the root key, and remembers who may open them.
func (k *keeper) holdLocked(r *rooms, why string) error {
	why = "sealed by an operator: " + why
	k.open, k.held, k.why = nil, true, why
	k.seen.Store(nil)
	k.appliance.SealedBy(why, server.Guard{Guard: r.delegation.Guard(), Unseal: k.unsealByOperators})
	err := r.close(k.log)
	k.vault.Seal()
	k.log.Warn("the store is sealed", "why", why)
	k.tellLocked()
	return err
}

// unsealByOperators opens the rooms when the quorum stamped it, and leaves them
// closed otherwise.
func (k *keeper) unsealByOperators(ctx context.Context, a delegation.Actor, requestID string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open != nil {
		return k.open.delegation.Unseal(ctx, a, requestID)
	}
	r, err := k.unseal(ctx)
	if err != nil {
		return err
	}
	if err := r.delegation.Unseal(ctx, a, requestID); err != nil {
		return errors.Join(err, k.holdLocked(r, r.delegation.SealedFor()))
	}
	k.openLocked(r)
	return nil
}

// tellLocked gives systemctl status the new state.
func (k *keeper) tellLocked() {
	if err := systemd.Status(k.statusLocked()); err != nil {
		k.log.Warn("telling systemd", "error", err)
	}
}

// reason says what happened and what people should do, in a line; nothing in it
// is secret. docs/operating.md has a row for each.
func reason(err error) string {
	said := strings.ReplaceAll(err.Error(), "\n", "; ")
	switch {
	case errors.Is(err, seal.ErrLatched):
		return "a wrong PIN is latched; correct the PIN file, then run sigilctl pin clear"
	case errors.Is(err, seal.ErrAuth):
		return "the sealing device refused the PIN; correct the PIN file, then run sigilctl pin clear; nothing is tried before"
	case errors.Is(err, seal.ErrLocked):
		return "the sealing device has locked the PIN, or is about to; its security officer has to look at it: " + said
	case errors.Is(err, seal.ErrNotFound):
		return "the token or its key is missing; connect it, or correct token_label, token_serial and env; trying again: " + said
	case errors.Is(err, seal.ErrUnavailable):
		return "the sealing device does not answer; look at the device, its module and env; trying again: " + said
	case errors.Is(err, vault.ErrTampered):
		return said + "; " + evidence
	}
	return said
}

// reasonTPM is reason where the device is a TPM.
func reasonTPM(err error) string {
	said := strings.ReplaceAll(err.Error(), "\n", "; ")
	switch {
	case errors.Is(err, seal.ErrLatched):
		return "a wrong PIN, or outside secret, is latched; correct provider.tpm.pin_file or secret_file, then run sigilctl pin clear"
	case errors.Is(err, seal.ErrAuth):
		return "the TPM does not open with the outside secret, or the PIN; correct provider.tpm.secret_file or pin_file; with a PIN run sigilctl pin clear then"
	case errors.Is(err, seal.ErrLocked):
		return "the TPM is locked: " + said
	case errors.Is(err, seal.ErrNotFound):
		return "it is another TPM, or it was cleared, or a key of ours was removed from it; trying again: " + said
	case errors.Is(err, seal.ErrUnavailable):
		return "the TPM does not answer as it should; trying again: " + said
	}
	return reason(err)
}

func (k *keeper) unseal(ctx context.Context) (_ *rooms, err error) {
	r := &rooms{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close(k.log))
			k.vault.Seal()
		}
	}()
	files, err := readPolicyFiles(k.cfg) // before a PIN is tried in vain
	if err != nil {
		return nil, fmt.Errorf("the policy files can't be loaded; correct them; trying again: %w", err)
	}
	r.policies.Store(&policiesInForce{files: files})
	if r.devices, err = openDevices(ctx, k.cfg, k.vault, k.log); err != nil {
		return nil, err
	}
	r.provider = r.devices.main()
	if err := k.vault.Unseal(ctx, r.devices.sealers()); err != nil {
		return nil, err
	}
	for _, d := range r.devices.here() {
		if err := k.endRolls(ctx, d); err != nil {
			return nil, err
		}
	}
	if err := r.devices.useParts(ctx); err != nil {
		return nil, err
	}
	checkpointKey, err := delegation.CheckpointKey(ctx, k.vault)
	if err != nil {
		return nil, err
	}
	if r.lacks, err = k.checkKeys(ctx, r.devices, seal.KeyRef(checkpointKey)); err != nil {
		return nil, err
	}
	now, kept, err := openClock(ctx, k.vault)
	if err != nil {
		return nil, err
	}
	keep := journal.Keep{For: k.cfg.Journal.KeepFor, Entries: k.cfg.Journal.KeepEntries}
	archive := journal.Archive{Dir: k.cfg.Journal.ArchiveDir, Entries: k.cfg.Journal.ArchiveEntries, After: k.cfg.Journal.ArchiveAfter}
	leasing := journal.Leasing{Part: k.cfg.Journal.LeasePart, Approvals: k.cfg.Journal.LeaseApprovals}
	if r.journal, err = journal.Open(ctx, k.vault, journal.Config{
		Signer: r.provider, CheckpointKey: seal.KeyRef(checkpointKey), Archive: archive, Keep: keep, Leasing: leasing, Refusals: k.refusals, Now: now.Now, Log: k.log,
	}); err != nil {
		return nil, err
	}
	now.Reached(r.journal.Now())
	if r.store, err = delegation.NewPreParamStore(ctx, k.vault); err != nil {
		return nil, err
	}
	pool := mpc.NewPool(mpc.PoolConfig{Store: r.store, Target: k.cfg.PreParameters.Target, Log: k.log})
	if r.outbox, err = outbox.Open(ctx, outbox.Config{Vault: k.vault, Journal: r.journal, Now: now.Now, Log: k.log}); err != nil {
		return nil, err
	}
	if r.delegation, err = delegation.Open(ctx, delegation.Config{
		Outbox: r.outbox,
		Vault:  k.vault, Journal: r.journal, PolicyFiles: files, PreParameters: pool.Take, CeremonyTimeout: k.cfg.Ceremonies.Timeout, Holders: r.devices.holders, Clock: now, Now: now.Now, Log: k.log,
		UnusedAlarm: k.cfg.UnusedCredentialAlarm, SemiTrusted: k.cfg.Peer.SemiTrusted, Peers: k.cfg.Peer.Pins(), Dial: k.dialPeer,
	}); err != nil {
		return nil, err
	}
	r.presignatures = signing.NewPresignatures(signing.PresignConfig{
		Authority: r.delegation, Failed: r.delegation.CountFailure, Vault: k.vault,
		Max: k.cfg.Presignatures.Max, CPU: k.cfg.Presignatures.CPU, Log: k.log,
	})
	deliveries := delivery.Config{Vault: k.vault, Journal: r.journal, Device: r.provider, DeviceID: r.provider.ID(), Delegations: r.delegation, Now: now.Now, Log: k.log}
	if h := k.cfg.VendorHelper; h.Socket != "" {
		deliveries.Program = vendorProgram{&runner.Client{Socket: h.Socket, Timeout: h.Timeout}}
	}
	if r.delivery, err = delivery.Open(ctx, deliveries); err != nil {
		return nil, err
	}
	r.delegation.Deliveries(r.delivery)
	if r.stamping, err = stamping.Open(ctx, stamping.Config{Vault: k.vault, Journal: r.journal, Delegations: r.delegation, Now: now.Now, Log: k.log}); err != nil {
		return nil, err
	}
	r.delegation.VendorCredentials(r.stamping)
	r.signing = signing.New(signing.Config{
		Presignatures: r.presignatures,
		Authority:     r.delegation, Vendors: r.delivery, Stamper: r.stamping, Failed: r.delegation.CountFailure, Vault: k.vault, Journal: r.journal,
		Dial: k.dialPeer, Timeout: k.cfg.Signing.Timeout, MaxConcurrent: k.cfg.Signing.MaxConcurrent, Refusals: k.refusals, Now: now.Now, TimeUnconfirmed: now.Unconfirmed, Log: k.log,
	})
	if err := k.note(ctx, r.journal, journal.KindStarted); err != nil {
		return nil, err
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	r.done.Go(func() { k.stirHourly(background, r.provider) })
	r.done.Go(func() { r.run("checkpoints", k.log, r.journal.Run(background)) })
	r.done.Go(func() { r.run("pre-parameters", k.log, pool.Run(background)) })
	r.done.Go(func() { r.run("presignatures", k.log, r.presignatures.Run(background)) })
	r.done.Go(func() { r.run("rotations", k.log, r.delegation.RunSchedule(background)) })
	r.done.Go(func() { k.rewrap(background) })
	r.done.Go(func() { tendClock(background, now, kept, k.vault, k.log) })
	r.done.Go(func() { r.run("expiry", k.log, r.delegation.RunExpiry(background)) })
	r.done.Go(func() { r.devices.tend(background) })
	if t, ok := r.provider.(*tpm.Provider); ok {
		r.askLockout(ctx, t, k.log)
		r.done.Go(func() { r.watchLockout(background, t, k.log) })
	}
	return r, nil
}

// note journals that the daemon started or stopped.
func (k *keeper) note(ctx context.Context, j *journal.Journal, kind journal.Kind) error {
	return k.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		_, err := j.Append(tx, journal.Entry{Kind: kind, Facts: map[string]string{"version": version}})
		return err
	})
}

// rewrapEvery is how often the keeper looks whether a root key was rotated.
const rewrapEvery = time.Second

// rewrap brings the records over to a new root key, also after a restart in the
// middle of it. What fails is tried again: the store is whole meanwhile.
func (k *keeper) rewrap(ctx context.Context) {
	for {
		if k.vault.Rotating() {
			n, err := k.vault.Rewrap(ctx)
			switch {
			case err == nil:
				k.log.Info("records are wrapped under the new root key", "records", n)
			case ctx.Err() == nil:
				k.log.Error("wrapping records under the new root key", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rewrapEvery):
		}
	}
}

// lockoutEvery is how often a TPM is asked for its lockout state.
const lockoutEvery = time.Minute

// watchLockout keeps what status shows of wrong tries. The TPM is asked here, since
// status must never wait for a device.
func (r *rooms) watchLockout(ctx context.Context, t *tpm.Provider, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lockoutEvery):
			r.askLockout(ctx, t, log)
		}
	}
}

// askLockout asks once. What fails is logged: nothing depends on it.
func (r *rooms) askLockout(ctx context.Context, t *tpm.Provider, log *slog.Logger) {
	l, err := t.Lockout(ctx)
	if err != nil {
		if ctx.Err() == nil {
			log.WarnContext(ctx, "asking the TPM for its lockout state", "error", err)
		}
		return
	}
	if old := r.lockout.Swap(&l); l.Tries > 0 && (old == nil || l.Tries != old.Tries) {
		log.WarnContext(ctx, "the TPM counts wrong tries, none of them sigild's", "state", l.String())
	}
}

// run logs the end of a background task that was not ours to end.
func (r *rooms) run(what string, log *slog.Logger, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Error("a background task ended", "task", what, "error", err)
	}
}

// close closes from the top down: no signature, no ceremony, the last
// checkpoint, then the device. What is nil was never opened.
func (r *rooms) close(log *slog.Logger) error {
	if r.signing != nil {
		r.signing.Close()
	}
	r.presignatures.Close()
	if r.delegation != nil {
		r.delegation.Close()
	}
	if r.cancel != nil {
		r.cancel()
		r.done.Wait()
	}
	var err error
	if r.journal != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if e := r.journal.Close(ctx); e != nil {
			err = fmt.Errorf("closing the journal: %w", e)
		}
	}
	if r.devices != nil {
		err = errors.Join(err, r.devices.close())
	}
	return err
}

// close ends the open rooms and seals the store.
func (k *keeper) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.open == nil {
		return nil
	}
	k.appliance.Sealed("stopping")
	k.seen.Store(nil)
	k.open.signing.Close()
	err := k.note(context.Background(), k.open.journal, journal.KindStopped)
	err = errors.Join(err, k.open.close(k.log))
	k.vault.Seal()
	return err
}

// status is one line for systemctl.
func (k *keeper) status() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.statusLocked()
}

func (k *keeper) statusLocked() string {
	if k.open == nil {
		return "sealed: " + k.why
	}
	return "unsealed"
}

// alarm is what an error says, nil for none.
func alarm(err error) *string {
	if err == nil {
		return nil
	}
	text := err.Error()
	return &text
}

// show fills in GetStatus.
func (k *keeper) show(r *rooms) *sigilv1.GetStatusResponse {
	ready, err := r.store.Count(context.Background())
	if err != nil {
		k.log.Error("counting pre-parameters", "error", err)
	}
	out := &sigilv1.GetStatusResponse{
		Anchor:             string(k.vault.Info().Anchor),
		PreParametersReady: uint32(ready), PreParametersTarget: uint32(k.cfg.PreParameters.Target),
	}
	out.MissingProtections, out.PolicyFiles = r.lacks, k.showPolicyFiles(r)
	j := r.journal.Status()
	out.JournalSequence, out.CheckpointSequence = j.Entries, j.Covered
	out.ClockAlarm = alarm(r.delegation.Clock().Why)
	out.CheckpointAlarm, out.ArchiveAlarm = alarm(j.CheckpointFailure), alarm(j.ArchiveFailure)
	if k.cfg.Journal.ArchiveDir != "" {
		out.ArchiveSequence = &j.Archived
	}
	if l := r.lockout.Load(); l != nil {
		out.TpmLockout = &sigilv1.TPMLockout{Locked: l.Locked, Tries: l.Tries, MaxTries: l.MaxTries, RecoverySeconds: uint32(l.Recovery / time.Second)}
	}
	out.Sealing = r.devices.show()
	for _, s := range k.vault.Slots() {
		out.Providers = append(out.Providers, s.Provider)
	}
	return out
}
