package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The main device is the one of section provider: it signs the journal, opens
// deliveries, and sealed the store at sigilctl init. Further ones may seal the store as
// well, and hold parts of shares.

// MainDevice is the name of the device in section provider.
const MainDevice = "provider"

// maxDevices bounds devices: each is asked at every start.
const maxDevices = 4

// deviceName is what a further device may be called: part of a file's name.
var deviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// Parts lists, by party, the devices whose part a share also needs, each time it is
// used: names of devices, "provider" for the main one. Empty: none.
type Parts struct {
	Server   []string `yaml:"server"`
	Delegate []string `yaml:"delegate"`
	Recovery []string `yaml:"recovery"`
	// Vendor is for shares that other vendors delivered.
	Vendor []string `yaml:"vendor"`
}

// ByParty are the lists by the name of the party.
func (p Parts) ByParty() map[string][]string {
	return map[string][]string{"server": p.Server, "delegate": p.Delegate, "recovery": p.Recovery, "vendor": p.Vendor}
}

// Named are the devices that any share needs, each once, sorted.
func (p Parts) Named() []string {
	var all []string
	for _, names := range p.ByParty() {
		all = append(all, names...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// DeviceNames are the names of all devices, the main one first.
func (c Config) DeviceNames() []string {
	return append([]string{MainDevice}, slices.Sorted(maps.Keys(c.Devices))...)
}

// DeviceTPM says whether the device is a TPM.
func (c Config) DeviceTPM(name string) bool {
	p, ok := c.named(name)
	return ok && p.TPM != nil
}

func (c Config) named(name string) (Provider, bool) {
	if name == MainDevice {
		return c.Provider, true
	}
	p, ok := c.Devices[name]
	return p, ok
}

// LatchFileOf is where a wrong PIN of a device is remembered.
func (c Config) LatchFileOf(name string) string {
	file := "pin-failed"
	if name != MainDevice {
		file += "-" + name
	}
	return filepath.Join(c.StateDir, file)
}

// key is where a device stands in the file.
func key(name string) string {
	if name == MainDevice {
		return name
	}
	return "devices." + name
}

// srkPrinter is the command that prints the SRK's Name of a TPM.
func srkPrinter(name string) string {
	if name == MainDevice {
		return "init"
	}
	return "provider list"
}

func (c Config) checkDevices() error {
	if len(c.Devices) > maxDevices {
		return fmt.Errorf("devices: at most %d", maxDevices)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Devices)) {
		if !deviceName.MatchString(name) || name == MainDevice {
			return fmt.Errorf("devices: %q can't be the name of a device: a to z, 0 to 9 and -, at most 32, not %q", name, MainDevice)
		}
		if err := c.Devices[name].check(key(name)); err != nil {
			return err
		}
	}
	byParty := c.Parts.ByParty()
	for _, party := range slices.Sorted(maps.Keys(byParty)) {
		names := byParty[party]
		if len(names) > 2 {
			return fmt.Errorf("parts.%s: at most two devices", party)
		}
		for i, name := range names {
			if _, ok := c.named(name); !ok {
				return fmt.Errorf("parts.%s: there is no device %q; hint: %s", party, name, strings.Join(c.DeviceNames(), " or "))
			}
			if slices.Contains(names[:i], name) {
				return errors.New("parts." + party + " names a device twice")
			}
		}
	}
	return nil
}
