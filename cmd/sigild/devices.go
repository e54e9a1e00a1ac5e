package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// devices are the sealing devices of the configuration. The main one is there as long as
// the store is open; others may come later.
type devices struct {
	cfg   config.Config
	log   *slog.Logger
	vault *vault.Vault
	// mu guards what follows.
	mu   sync.Mutex
	open map[string]config.Device // by name
	away map[string]string        // by name: why it is not here
	// pending: shares may be sealed otherwise than the configuration says; alarm is why
	// they can't be sealed so.
	pending bool
	alarm   string
	// slow keeps two rounds of tend apart.
	slow sync.Mutex
}

// tendEvery is how often a device that is away is asked again.
const tendEvery = 30 * time.Second

// openDevices opens all devices. An error is of the main one, or of two that are the same;
// others that don't answer are away.
func openDevices(ctx context.Context, cfg config.Config, v *vault.Vault, log *slog.Logger) (*devices, error) {
	d := &devices{cfg: cfg, log: log, vault: v, open: map[string]config.Device{}, away: map[string]string{}}
	main, err := cfg.OpenDevice(ctx, log)
	if err != nil {
		return nil, err
	}
	d.open[config.MainDevice] = main
	for _, name := range cfg.DeviceNames()[1:] {
		if _, err := d.openOne(ctx, name); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

// errSameDevice says that two names lead to one device: nobody should believe that its
// theft leaves the other.
var errSameDevice = errors.New("two devices of the configuration are the same")

// openOne opens a device that is away. Only errSameDevice is an error.
func (d *devices) openOne(ctx context.Context, name string) (config.Device, error) {
	opened, err := d.cfg.OpenNamed(ctx, name, d.log)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		why := strings.ReplaceAll(err.Error(), "\n", "; ")
		if d.away[name] != why {
			d.log.ErrorContext(ctx, "a sealing device is not here", "device", name, "error", err)
		}
		d.away[name] = why
		return nil, nil
	}
	for other, x := range d.open {
		if x.ID() == opened.ID() {
			return nil, errors.Join(fmt.Errorf("%w: %s and %s are %s", errSameDevice, other, name, x.ID()), opened.Close())
		}
	}
	d.open[name] = opened
	delete(d.away, name)
	return opened, nil
}

// main is the device of section provider.
func (d *devices) main() config.Device { return d.named(config.MainDevice) }

func (d *devices) named(name string) config.Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open[name]
}

// here are the devices that are open, by name.
func (d *devices) here() map[string]config.Device {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.open)
}

// sealers are those that are open, by id, as the vault wants them.
func (d *devices) sealers() map[string]seal.Sealer {
	out := map[string]seal.Sealer{}
	for _, x := range d.here() {
		out[x.ID()] = x
	}
	return out
}

// close closes them, the main one last.
func (d *devices) close() error {
	var err error
	all := d.here()
	for _, name := range slices.Backward(append([]string{config.MainDevice}, slices.Sorted(maps.Keys(d.cfg.Devices))...)) {
		if x := all[name]; x != nil {
			err = errors.Join(err, x.Close())
		}
	}
	return err
}

// holders implements delegation.Config.Holders: each device with the key that it holds
// keyslots with, or a new one.
func (d *devices) holders(ctx context.Context, names []string) ([]vault.KeyHolder, error) {
	var out []vault.KeyHolder
	for _, name := range names {
		x := d.named(name)
		if x == nil {
			d.mu.Lock()
			why, known := d.away[name]
			d.mu.Unlock()
			if !known {
				return nil, fmt.Errorf("%w: no device %q in the configuration", seal.ErrNotFound, name)
			}
			return nil, fmt.Errorf("%w: %s: %s", seal.ErrUnavailable, name, why)
		}
		h := vault.KeyHolder{Sealer: x, ID: x.ID()}
		for _, s := range d.vault.Slots() {
			if s.Provider == h.ID {
				h.Ref = s.Ref // one sealing key a device, so that a roll replaces it everywhere
			}
		}
		if h.Ref == "" {
			var err error
			if h.Ref, err = x.MakeKEK(ctx); err != nil {
				return nil, err
			}
		}
		out = append(out, h)
	}
	return out, nil
}

// absent stands for a device that was never here, so that nothing is sealed without it.
const absent = "absent:"

// rule is what the configuration says of shares, in ids; whole is false while a device
// that it names is away.
func (d *devices) rule() (r vault.PartRule, byParty map[string][]string, whole bool) {
	byParty, whole = map[string][]string{}, true
	var text []string
	for party, names := range d.cfg.Parts.ByParty() {
		for _, name := range names {
			id := absent + name
			if x := d.named(name); x != nil {
				id = x.ID()
			} else {
				whole = false
			}
			byParty[party] = append(byParty[party], id)
		}
		if len(names) > 0 {
			text = append(text, party+"="+strings.Join(byParty[party], "+"))
		}
	}
	slices.Sort(text)
	r = vault.PartRule{
		Text:  strings.Join(text, " "),
		Types: []vault.Type{vault.TypeShare, vault.TypeVendorShare, vault.TypeVendorAPIKey, vault.TypeVendorKey},
		Devices: func(t vault.Type, id string) []string {
			if t != vault.TypeShare {
				return byParty["vendor"]
			}
			return byParty[string(delegation.PartyOfShare(id))]
		},
	}
	return r, byParty, whole
}

// useParts tells the vault what shares need, and makes the keys for parts that are
// missing in the devices that are here.
func (d *devices) useParts(ctx context.Context) error {
	for _, name := range d.cfg.Parts.Named() {
		x := d.named(name)
		if x == nil {
			continue
		}
		has, err := d.vault.HasPartKey(ctx, x.ID())
		if err != nil {
			return err
		}
		if has {
			continue
		}
		ref, err := x.MakeKEK(ctx)
		if err != nil {
			return err
		}
		if err := d.vault.UpdateAlone(ctx, func(tx *vault.Tx) error { return tx.AddPartKey(x.ID(), ref) }); err != nil {
			return err
		}
		d.log.InfoContext(ctx, "made a key for parts of shares", "device", name, "id", x.ID(), "key", ref)
	}
	if err := d.vault.EndPartRolls(ctx); err != nil {
		return err
	}
	rule, _, _ := d.rule()
	d.vault.UseParts(rule)
	pending, err := d.vault.PartsPending(ctx)
	d.mu.Lock()
	d.pending = pending
	d.mu.Unlock()
	return err
}

// tend asks devices that are away, and seals shares as the configuration says, until ctx
// ends.
func (d *devices) tend(ctx context.Context) {
	for {
		d.tendOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-time.After(tendEvery):
		}
	}
}

func (d *devices) tendOnce(ctx context.Context) {
	d.slow.Lock()
	defer d.slow.Unlock()
	d.mu.Lock()
	away := slices.Sorted(maps.Keys(d.away))
	d.mu.Unlock()
	for _, name := range away {
		if _, latched, err := seal.ReadLatch(d.cfg.LatchFileOf(name)); latched || err != nil {
			continue // a PIN is not tried twice
		}
		x, err := d.openOne(ctx, name)
		if err == nil && x != nil {
			err = d.vault.Connect(x.ID(), x)
		}
		if err == nil && x != nil {
			d.log.InfoContext(ctx, "a sealing device is here", "device", name, "id", x.ID())
			err = d.useParts(ctx)
		}
		if err != nil {
			d.log.ErrorContext(ctx, "taking up a sealing device", "device", name, "error", err)
		}
	}
	d.reseal(ctx)
}

// reseal brings shares to the rule. What fails is shown, and tried again.
func (d *devices) reseal(ctx context.Context) {
	_, _, whole := d.rule()
	d.mu.Lock()
	pending := d.pending
	d.mu.Unlock()
	if !pending {
		return
	}
	var n int
	err := fmt.Errorf("%w: a device that the configuration names is away", seal.ErrUnavailable)
	if whole {
		n, err = d.vault.ResealParts(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.alarm = strings.ReplaceAll(err.Error(), "\n", "; ")
		d.log.ErrorContext(ctx, "sealing shares as the configuration says", "sealed", n, "error", err)
		return
	}
	d.pending, d.alarm = false, ""
	d.log.InfoContext(ctx, "shares are sealed as the configuration says", "sealed", n)
}

// show is what status says.
func (d *devices) show() *sigilv1.Sealing {
	_, byParty, _ := d.rule()
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &sigilv1.Sealing{Pending: d.pending}
	if d.alarm != "" {
		out.Alarm = &d.alarm
	}
	for _, name := range d.cfg.DeviceNames() {
		x := &sigilv1.SealingDevice{Name: name}
		if opened := d.open[name]; opened != nil {
			id := opened.ID()
			x.Id = &id
		}
		if why, away := d.away[name]; away {
			x.Alarm = &why
		}
		out.Devices = append(out.Devices, x)
	}
	for _, party := range slices.Sorted(maps.Keys(byParty)) {
		out.Parts = append(out.Parts, &sigilv1.ShareParts{Party: party, Devices: byParty[party]})
	}
	// A root set has server and recovery here, a delegation's server and delegate; two sign.
	slots := d.vault.Slots()
	for _, pair := range [][2]string{{"server", "recovery"}, {"server", "delegate"}} {
		for _, id := range delegation.TheftOf(slots, [][]string{byParty[pair[0]], byParty[pair[1]]}, 2) {
			if !slices.Contains(out.TheftOf, id) {
				out.TheftOf = append(out.TheftOf, id)
			}
		}
	}
	slices.Sort(out.TheftOf)
	return out
}
