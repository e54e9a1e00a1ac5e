package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// openOthers opens the devices beside the main one, as far as they answer; what is wrong
// with the others is said of each.
func openOthers(ctx context.Context, cfg config.Config) (here map[string]config.Device, wrong []string) {
	here = map[string]config.Device{}
	for _, name := range cfg.DeviceNames()[1:] {
		err := seal.CheckLatch(cfg.LatchFileOf(name))
		if err == nil {
			var d config.Device
			if d, err = cfg.OpenNamed(ctx, name, slog.New(slog.DiscardHandler)); err == nil {
				here[name] = d
				continue
			}
		}
		wrong = append(wrong, fmt.Sprintf("%s: %v", name, err))
	}
	return here, wrong
}

// tryAll holds the store against all devices that answer.
func (p *patient) tryAll(ctx context.Context, main config.Device, pin vault.Pin) error {
	all := map[string]seal.Sealer{main.ID(): main}
	others, _ := openOthers(ctx, p.cfg)
	for _, d := range others {
		defer d.Close()
		all[d.ID()] = d
	}
	return vault.TryUnseal(ctx, p.db(), pin, all)
}

const otherDeviceFix = "connect it; sigilctl provider list tries it; shares that need it sign with it alone"

// checkOthers looks at the devices beside the main one.
func checkOthers(p *patient) finding {
	if len(p.cfg.Devices) == 0 {
		return well("there is no further device")
	}
	st, err := p.ask()
	if err == nil && !st.GetSealed() {
		for _, d := range st.GetSealing().GetDevices() {
			if d.Alarm != nil {
				return bad(otherDeviceFix, "the daemon says: %s: %s", d.GetName(), d.GetAlarm())
			}
		}
		if s := st.GetSealing(); s.Alarm != nil {
			return bad(otherDeviceFix, "the daemon says: shares are not sealed as parts says: %s", s.GetAlarm())
		}
		return well("the daemon has opened %d further devices", len(p.cfg.Devices))
	}
	if err := p.ownedByUs(); err != nil {
		return unknown("%v", err)
	}
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	here, wrong := openOthers(ctx, p.cfg)
	for _, d := range here {
		_ = d.Close()
	}
	if len(wrong) > 0 {
		return bad(otherDeviceFix, "%s", strings.Join(wrong, "; "))
	}
	return well("%d further devices open", len(here))
}
