package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Checks of the store, the sealing device and the journal.

func (p *patient) db() string { return filepath.Join(p.cfg.StateDir, vault.FileName) }

// inspect reads what the store says without a key.
func (p *patient) inspect() ([]vault.SlotInfo, error) {
	return p.store.get(func() ([]vault.SlotInfo, error) {
		pin, err := readPin(p.cfg.PinFile)
		if err != nil {
			return nil, errNotLooked
		}
		return vault.Inspect(p.ctx, p.db(), pin)
	})
}

func readPin(path string) (vault.Pin, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return vault.Pin{}, err
	}
	return vault.ParsePin(b)
}

func checkPinFile(p *patient) finding {
	_, err := readPin(p.cfg.PinFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return bad("sigilctl init, or put the copy back that you kept", "there is no %s, and without it the units don't start", p.cfg.PinFile)
	case errors.Is(err, fs.ErrPermission):
		return unknown("%v", err)
	case err != nil:
		return bad("put the copy back that you kept", "%s: %v", p.cfg.PinFile, err)
	}
	return well("%s is a store pin", p.cfg.PinFile)
}

func checkStorePresent(p *patient) finding {
	_, err := os.Stat(p.db())
	if errors.Is(err, fs.ErrNotExist) {
		return bad("sigilctl init, or the right state_dir", "there is no %s", p.db())
	}
	if err != nil {
		return unknown("%v", err)
	}
	return well("%s is there", p.db())
}

// checkStoreModes looks as a start does, for whoever the state belongs to.
func checkStoreModes(p *patient) finding {
	const fix = "chown -R to the daemon's user, 0700 for the folder, 0600 for files, no links"
	dir, err := os.Lstat(p.cfg.StateDir)
	if err != nil {
		return unknown("%v", err)
	}
	owner := dir.Sys().(*syscall.Stat_t).Uid
	if us := os.Geteuid(); us != 0 && us != int(owner) {
		return bad(fix, "%s belongs to uid %d, not to %d", p.cfg.StateDir, owner, us)
	}
	if !dir.IsDir() || dir.Mode().Perm()&0o077 != 0 {
		return bad(fix, "%s has mode %v", p.cfg.StateDir, dir.Mode())
	}
	for _, name := range []string{vault.FileName, vault.FileName + "-wal", vault.FileName + "-shm", vault.LockName} {
		path := filepath.Join(p.cfg.StateDir, name)
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return unknown("%v", err)
		}
		if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
			return bad(fix, "%s has mode %v", path, info.Mode())
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != owner {
			return bad(fix, "%s belongs to uid %d, its folder to %d", path, uid, owner)
		}
	}
	return well("the store is its owner's alone, uid %d", owner)
}

func checkStoreLock(p *patient) finding {
	pid, err := lockHolder(filepath.Join(p.cfg.StateDir, vault.LockName))
	if errors.Is(err, fs.ErrNotExist) || err == nil && pid == 0 {
		return well("no process holds the store")
	}
	if err != nil {
		return unknown("%v", err)
	}
	if _, err := whoAnswers(p.cfg.Sockets.Admin.Path); err != nil {
		return bad("find out what it is; never remove the lock file", "process %d holds the store and nobody answers on %s", pid, p.cfg.Sockets.Admin.Path)
	}
	return well("process %d holds the store and serves", pid)
}

// storeSays gives one check the error that is its own.
func storeSays(p *patient, of error, fix string) finding {
	_, err := p.inspect()
	switch {
	case err == nil:
		return well("as it should be, without the key")
	case errors.Is(err, of):
		return bad(fix, "%v", err)
	case errors.Is(err, errNotLooked):
		return unknown("the pin can't be read")
	}
	return unknown("%v", err)
}

func checkStoreSchema(p *patient) finding {
	return storeSays(p, vault.ErrSchema, "use the version of sigild that made it")
}

func checkStorePinned(p *patient) finding {
	return storeSays(p, vault.ErrPinMismatch, "find out who exchanged store or pin before anything else; use the copy of the pin")
}

func checkStoreIntact(p *patient) finding {
	return storeSays(p, vault.ErrTampered, "don't start it again; copy state_dir aside: a bad disk, or a bad person")
}

// deviceSays tells by its words which check a failure of the device belongs to; the
// words are those of docs/operating.md. The first that fits counts.
var deviceSays = []struct{ id, says string }{
	{"store.older", "vault is an older copy"},
	{"anchor", "rollback anchor"},
	{"device.latch", "is latched"},
	{"tpm.locked", "the TPM is locked"},
	{"device.pin-locked", "has locked the PIN"},
	{"tpm.secret", "does not open with the outside secret"},
	{"device.pin", "refused the PIN"},
	{"device.unique", "more than one token or key matches"},
	{"device.cgo", "built without cgo"},
	{"tpm.bus", "may be a chip of its own"},
	{"tpm.same", "it is another TPM, or it was cleared"},
	{"tpm.approval", "it was revoked"},
	{"tpm.approval", "not the approver's"},
	{"tpm.approval", "it is for the TPM whose SRK is"},
	{"tpm.boot-state", "this boot state is not approved"},
	{"device.policy", "violates the sealing policy"},
	{"keyslot", "no keyslot for the providers at hand"},
	{"device.found", "no such token or key"},
	{"device.answers", "sealing device unavailable"},
	{"device.answers", "does not answer"},
}

// deviceFixes say what to do, by id.
var deviceFixes = map[string]string{
	"device.latch":      "correct the PIN file, then sigilctl pin clear",
	"device.pin-locked": "unlock it with the security officer's PIN, then sigilctl pin clear",
	"device.pin":        "correct the PIN file, then sigilctl pin clear",
	"device.unique":     "give token_serial",
	"device.cgo":        "install the package's binary, or build with a C compiler",
	"device.policy":     "restore the rights; never \"fix\" a key's attributes",
	"device.found":      "connect it; pkcs11-tool --list-slots as the daemon's user; mind SOFTHSM2_CONF",
	"device.answers":    "check module, env, the network of the HSM; the daemon tries again by itself",
	"tpm.secret":        "put the secret_file of init there; nothing is counted",
	"tpm.locked":        "wait as long as it says, or tpm2_dictionarylockout --clear-lockout",
	"store.older":       "put the newest copy back; find out who put this one there",
	"anchor":            "connect the right device, or use the right pin",
	"tpm.bus":           "see trust_bus in the configuration",
	"tpm.same":          "a cleared TPM opens nothing any more; connect the right one",
	"tpm.approval":      "have this boot state approved anew",
	"tpm.boot-state":    "is it what you booted? Then approve it. If not, find out who changed it",
	"keyslot":           "connect the device of init",
}

// complaintOf finds the check whose business it is.
func complaintOf(said, seen string) complaint {
	for _, d := range deviceSays {
		if strings.Contains(said, d.says) {
			return complaint{id: d.id, said: said, seen: seen}
		}
	}
	return complaint{id: "device.answers", said: said, seen: seen}
}

// blame is complaintOf for an error in our hands.
func (p *patient) blame(err error) complaint {
	if p.cfg.Provider.TPM != nil && errors.Is(err, seal.ErrAuth) {
		return complaint{id: "tpm.secret", said: err.Error()}
	}
	if p.cfg.Provider.TPM != nil && errors.Is(err, seal.ErrLocked) {
		return complaint{id: "tpm.locked", said: err.Error()}
	}
	return complaintOf(err.Error(), "")
}

// open asks the daemon, if there is one, or opens the device as a start would.
func (p *patient) open() (complaint, error) {
	return p.device.get(func() (complaint, error) {
		if st, err := p.ask(); err == nil {
			if why := st.GetSealedReason(); st.GetSealed() && !strings.HasPrefix(why, "sealed by an operator") {
				return complaintOf(why, "the daemon says: "), nil
			}
			return complaint{seen: "the daemon has opened it"}, nil
		}
		if err := p.ownedByUs(); err != nil {
			return complaint{}, err
		}
		if pid, _ := lockHolder(filepath.Join(p.cfg.StateDir, vault.LockName)); pid != 0 {
			return complaint{}, fmt.Errorf("process %d holds the store and does not say", pid)
		}
		if _, latched, err := seal.ReadLatch(p.cfg.LatchFile()); latched || err != nil {
			return complaint{}, errors.New("a wrong PIN is latched, so it is not tried")
		}
		ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
		defer cancel()
		d, err := p.cfg.OpenDevice(ctx, slog.New(slog.DiscardHandler))
		if err != nil {
			return p.blame(err), nil
		}
		defer d.Close()
		if _, err := p.inspect(); err != nil {
			return complaint{seen: d.ID() + " opens; the store can't be tried"}, nil
		}
		pin, err := readPin(p.cfg.PinFile)
		if err == nil {
			err = p.tryAll(ctx, d, pin)
		}
		if err != nil {
			return p.blame(err), nil
		}
		return complaint{seen: d.ID() + " opens the store"}, nil
	})
}

// checkDevice serves all checks of the device: at most one of them has the complaint.
func checkDevice(p *patient) finding {
	if strings.HasPrefix(p.check, "tpm.") && p.cfg.Provider.TPM == nil {
		return well("no TPM is used")
	}
	c, err := p.open()
	switch {
	case err != nil:
		return unknown("%v", err)
	case c.id == p.check:
		return bad(deviceFixes[c.id], "%s%s", c.seen, c.said)
	case c.id != "":
		return unknown("the device was not opened: see %s", c.id)
	}
	return well("%s", c.seen)
}

func checkLatch(p *patient) finding {
	for _, name := range p.cfg.DeviceNames() {
		l, latched, err := seal.ReadLatch(p.cfg.LatchFileOf(name))
		if errors.Is(err, fs.ErrPermission) {
			return unknown("%v", err)
		}
		if err != nil {
			return bad(deviceFixes["device.latch"], "device %s: %v", name, err)
		}
		if latched {
			return bad(deviceFixes["device.latch"], "a wrong PIN of device %s is latched since %s", name, l.Time.Format(time.RFC3339))
		}
	}
	return well("no wrong PIN is remembered")
}

// ask is the daemon's status.
func (p *patient) ask() (*sigilv1.GetStatusResponse, error) {
	return p.status.get(func() (*sigilv1.GetStatusResponse, error) { return askStatus(p.ctx, p.cfg.Sockets.Admin.Path) })
}

func checkSealed(p *patient) finding {
	st, err := p.ask()
	if err != nil {
		return odd("systemctl status sigild; start it, or give this uid a role", "%v", err)
	}
	if st.GetSealed() {
		return bad("the reason says what to do", "sealed: %s", st.GetSealedReason())
	}
	return well("the daemon serves, unsealed")
}

func checkClock(p *patient) finding {
	st, err := p.ask()
	switch {
	case err != nil:
		return well("no daemon answers that would keep time; the check \"sealed\" says why")
	case st.GetSealed():
		return well("a sealed daemon keeps no time")
	case st.ClockAlarm != nil:
		return bad("let NTP keep the clock, or sigilctl clock confirm", "%s", st.GetClockAlarm())
	}
	return well("the time is relied on")
}

// diary is what reading the whole journal brings.
type diary struct {
	journal.Report
	unsignedSince time.Time
	unknown       map[uint64]string // approvals whose outcome is unknown: their request ids
	limited       map[time.Time]int // when calls were refused with RATE_LIMITED
	archived      string            // the last archived entry's fact
}

func (p *patient) read() (diary, error) {
	return p.diary.get(func() (diary, error) {
		d := diary{unknown: map[uint64]string{}, limited: map[time.Time]int{}}
		ids := map[uint64]string{}
		var times []time.Time
		var err error
		d.Report, err = journal.Walk(p.ctx, p.db(), nil, func(e journal.Entry) error {
			at := time.UnixMilli(e.TimeMS)
			switch e.Kind {
			case journal.KindApproved:
				ids[e.Seq] = e.RequestID
			case journal.KindOutcomeUnknown:
				d.unknown[e.ApprovedSeq] = ids[e.ApprovedSeq]
			case journal.KindSigned, journal.KindFailed:
				delete(d.unknown, e.ApprovedSeq)
				delete(ids, e.ApprovedSeq)
			case journal.KindRefusals:
				for name := range e.Facts {
					if strings.HasPrefix(name, "refused.RATE_LIMITED.") {
						d.limited[at]++
					}
				}
			case journal.KindArchived:
				d.archived = e.Facts["last"]
			case journal.KindCheckpoint:
				times = nil
			}
			if e.Kind != journal.KindCheckpoint {
				times = append(times, at)
			}
			return nil
		})
		if d.Unsigned > 0 && len(times) > 0 {
			d.unsignedSince = times[0]
		}
		return d, err
	})
}

func checkJournal(p *patient) finding {
	d, err := p.read()
	var broken *journal.VerifyError
	switch {
	case errors.As(err, &broken):
		return bad("copy state_dir aside before anything else: it is evidence; the entries before that one still hold", "%v", err)
	case err != nil:
		return unknown("%v", err)
	}
	return well("%d entries verify, under a checkpoint up to %d", d.Entries, d.Covered)
}

// longUnsigned is after what time the daemon approves nothing more.
const longUnsigned = 5 * time.Minute

func checkJournalSigned(p *patient) finding {
	d, err := p.read()
	if err != nil {
		return unknown("%v", err)
	}
	if d.Unsigned > 0 && time.Since(d.unsignedSince) > longUnsigned {
		return bad("see what the device says; nothing is approved on an unsigned journal. With the daemon down, start it: the first thing it does is sign",
			"%d entries from %d on wait for the device's signature since %s", d.Unsigned, d.FirstUnsigned, d.unsignedSince.UTC().Format(time.RFC3339))
	}
	return well("%d entries wait for the device's signature", d.Unsigned)
}

func checkArchive(p *patient) finding {
	dir := p.cfg.Journal.ArchiveDir
	if dir == "" {
		return well("none is kept")
	}
	const fix = "make the folder the daemon's own, mode 0700, with space, and in ReadWritePaths= of the unit; a damaged file: compare it with another copy"
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrPermission) {
		return unknown("%v", err)
	}
	if err != nil || !info.IsDir() {
		return bad(fix, "journal.archive_dir: %s is no folder that is there", dir)
	}
	if own, err := os.Stat(p.cfg.StateDir); err == nil && own.Sys().(*syscall.Stat_t).Uid != info.Sys().(*syscall.Stat_t).Uid {
		return bad(fix, "journal.archive_dir: %s belongs to another user than the store", dir)
	}
	files, err := journal.SegmentFiles(dir)
	if err != nil {
		return unknown("%v", err)
	}
	d, readErr := p.read()
	if len(files) == 0 || readErr != nil {
		return well("%d segments", len(files))
	}
	if _, err := journal.VerifySegments(p.ctx, files[len(files)-1:], d.CheckpointKey, nil); err != nil {
		return bad(fix, "the newest segment: %v", err)
	}
	return well("%d segments, the newest verifies; entries up to %s are archived", len(files), d.archived)
}

func checkLoad(p *patient) finding {
	d, err := p.read()
	if err != nil {
		return unknown("%v", err)
	}
	n := 0
	for at := range d.limited {
		if time.Since(at) < 24*time.Hour {
			n++
		}
	}
	if n > 0 {
		return odd("let callers ask later; raise signing.max_concurrent only with cores to spare", "in %d minutes of the last day calls were refused with RATE_LIMITED", n)
	}
	return well("no call was refused with RATE_LIMITED in the last day")
}

func checkOutcomes(p *patient) finding {
	d, err := p.read()
	if err != nil {
		return unknown("%v", err)
	}
	if len(d.unknown) == 0 {
		return well("every approved request has an outcome")
	}
	var ids []string
	for _, id := range d.unknown {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return odd("the caller repeats with the same request id", "the outcome of %d requests is unknown and their charges stand: %s", len(ids), strings.Join(ids[:min(len(ids), 5)], ", "))
}
