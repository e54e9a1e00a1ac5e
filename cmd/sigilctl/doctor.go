package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/vault"
)

// doctorCommand looks for every failure that docs/operating.md names; a test holds
// the two together. It works with the daemon up or down, needs no stamp, and changes
// nothing but what a start would: with the daemon down it tries the PIN, once.
func doctorCommand() *cobra.Command {
	var output, root string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong on this machine, say how it shows and what to do; exit 0 nothing, 1 something",
		Long: "Look for what is wrong on this machine: for every failure in docs/operating.md there is a check with an id,\n" +
			"evidence and advice. The daemon may be up or down. With the daemon down the sealing device is opened as a start\n" +
			"would open it, which needs the daemon's user; a wrong PIN is tried once and then remembered, as ever.\n\n" +
			"ok: looked, and well. warn: somebody should know. fail: it keeps sigild from starting, unsealing or signing.\n" +
			"unknown: couldn't be looked at, with the reason.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output must be table or json, not %q", output)
			}
			findings := examine(cmd, root)
			failed := 0
			for _, f := range findings {
				if f.Verdict == isBad {
					failed++
				}
			}
			if output == "json" {
				b, err := json.Marshal(report{Version: 1, Failed: failed, Checks: findings})
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), string(b))
			} else {
				for _, f := range findings {
					fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-19s %s\n", f.Verdict, f.ID, f.Evidence)
					if f.Fix != "" {
						fmt.Fprintf(cmd.OutOrStdout(), "%28s do: %s\n", "", f.Fix)
					}
				}
			}
			if failed > 0 {
				return exitError{fmt.Errorf("%d of %d checks failed", failed, len(findings)), 1}
			}
			return nil
		},
	}
	c.Flags().StringVar(&output, "output", "table", "table for people, json for programs")
	c.Flags().StringVar(&root, "root", "/", "look for systemd's units below this `folder`")
	return c
}

// The verdicts.
const (
	isWell    = "ok"
	isOdd     = "warn"
	isBad     = "fail"
	isUnknown = "unknown"
)

// finding is what one check saw.
type finding struct {
	ID       string `json:"id"`
	Verdict  string `json:"verdict"`
	Evidence string `json:"evidence"`
	Fix      string `json:"fix,omitempty"`
}

// report is the JSON.
type report struct {
	Version int       `json:"version"` // of this form
	Failed  int       `json:"failed"`
	Checks  []finding `json:"checks"`
}

func well(format string, args ...any) finding {
	return finding{Verdict: isWell, Evidence: oneLine(fmt.Sprintf(format, args...))}
}

func unknown(format string, args ...any) finding {
	return finding{Verdict: isUnknown, Evidence: oneLine(fmt.Sprintf(format, args...))}
}

func bad(fix, format string, args ...any) finding {
	return finding{Verdict: isBad, Evidence: oneLine(fmt.Sprintf(format, args...)), Fix: fix}
}

func odd(fix, format string, args ...any) finding {
	return finding{Verdict: isOdd, Evidence: oneLine(fmt.Sprintf(format, args...)), Fix: fix}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// check is one row. look may rely on the configuration being there, except where
// bare is set.
type check struct {
	id   string
	bare bool
	look func(*patient) finding
}

// checks are in the order in which a start meets them.
var checks = []check{
	{id: "config", bare: true, look: checkConfig},
	{id: "pin.file", look: checkPinFile},
	{id: "store.present", look: checkStorePresent},
	{id: "store.modes", look: checkStoreModes},
	{id: "store.lock", look: checkStoreLock},
	{id: "store.schema", look: checkStoreSchema},
	{id: "store.pinned", look: checkStorePinned},
	{id: "store.intact", look: checkStoreIntact},
	{id: "socket.kind", look: checkSocketKind},
	{id: "socket.owner", look: checkSocketOwner},
	{id: "socket.group", look: checkSocketGroup},
	{id: "socket.modes", look: checkSocketModes},
	{id: "unit.sockets", look: checkUnitSockets},
	{id: "unit.users", look: checkUnitUsers},
	{id: "vm.generation", look: checkGeneration},
	{id: "unit.credential", look: checkUnitCredential},
	{id: "disk.space", look: checkDiskSpace},
	{id: "disk.sync", look: checkDiskSync},
	{id: "device.latch", look: checkLatch},
	{id: "device.answers", look: checkDevice},
	{id: "device.cgo", look: checkDevice},
	{id: "device.found", look: checkDevice},
	{id: "device.unique", look: checkDevice},
	{id: "device.pin", look: checkDevice},
	{id: "device.pin-locked", look: checkDevice},
	{id: "device.policy", look: checkDevice},
	{id: "tpm.same", look: checkDevice},
	{id: "tpm.bus", look: checkDevice},
	{id: "tpm.secret", look: checkDevice},
	{id: "tpm.boot-state", look: checkDevice},
	{id: "tpm.approval", look: checkDevice},
	{id: "tpm.locked", look: checkDevice},
	{id: "store.older", look: checkDevice},
	{id: "anchor", look: checkDevice},
	{id: "keyslot", look: checkDevice},
	{id: "device.others", look: checkOthers},
	{id: "journal", look: checkJournal},
	{id: "journal.signed", look: checkJournalSigned},
	{id: "archive", look: checkArchive},
	{id: "roles", look: checkRoles},
	{id: "sealed", look: checkSealed},
	{id: "clock", look: checkClock},
	{id: "load", look: checkLoad},
	{id: "outcomes", look: checkOutcomes},
	{id: "link", look: checkLink},
	{id: "peer.appliances", look: checkAppliances},
	{id: "courier.role", look: checkCourier},
	{id: "receive", look: checkReceive},
	{id: "receive.certificate", look: checkCertificate},
	{id: "deliver", look: checkDeliver},
	{id: "helper", look: checkHelper},
	{id: "helper.program", look: checkHelperProgram},
}

// patient is the machine under examination; what several checks ask is asked once.
type patient struct {
	ctx   context.Context
	root  string // of systemd's folders
	check string // the id of the check that looks

	cfg    config.Config
	cfgErr error

	store  once[[]vault.SlotInfo]
	status once[*sigilv1.GetStatusResponse]
	device once[complaint]
	diary  once[diary]
}

// once is asked for at the first need.
type once[T any] struct {
	asked bool
	value T
	err   error
}

func (o *once[T]) get(ask func() (T, error)) (T, error) {
	if !o.asked {
		o.asked = true
		o.value, o.err = ask()
	}
	return o.value, o.err
}

// examine runs all checks. One that panics is a mistake of ours and says so.
func examine(cmd *cobra.Command, root string) []finding {
	p := &patient{ctx: cmd.Context(), root: root}
	p.cfg, p.cfgErr = loadConfig(cmd)
	var all []finding
	for _, c := range checks {
		p.check = c.id
		f := unknown("the configuration can't be read")
		if c.bare || p.cfgErr == nil {
			f = c.look(p)
		}
		f.ID = c.id
		all = append(all, f)
	}
	return all
}

func checkConfig(p *patient) finding {
	if p.cfgErr != nil {
		return bad("correct it; the comments of packaging/sigild.yaml say which keys and values there are", "%v", p.cfgErr)
	}
	return well("it is understood")
}

// complaint is what opening the device ended with; id "" when it went well.
type complaint struct {
	id, said string
	// how it was seen.
	seen string
}

var errNotLooked = errors.New("not looked")
