package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/metrics"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/server"
	"github.com/sigild/sigild/vault"
)

// gauges gathers what docs/operating.md lists under Metrics: what status says, what the
// sockets count, what the devices were asked, and this process. No device is asked.
type gauges struct {
	cfg    config.Config
	keeper *keeper
	server *server.Server
	status sigilv1.StatusServiceServer
	began  time.Time
}

// textfileEvery is how often the file is written.
const textfileEvery = 15 * time.Second

// run serves the socket and writes the file, as configured, as tasks that end with ctx.
func (g *gauges) run(ctx context.Context, task func(func() error), at server.Endpoint, log *slog.Logger) error {
	if at.Path != "" {
		l, remove, err := at.Listen()
		if err != nil {
			return err
		}
		task(func() error {
			defer remove()
			return metrics.Serve(ctx, l, g.collect)
		})
	}
	if file := g.cfg.Metrics.Textfile; file != "" {
		task(func() error { g.write(ctx, file, log); return nil })
	}
	return nil
}

// write renews the file until ctx ends. What fails is logged, once a change: numbers
// that are missing stop nothing.
func (g *gauges) write(ctx context.Context, file string, log *slog.Logger) {
	said := ""
	for {
		err := metrics.WriteFile(file, g.collect)
		switch {
		case err == nil:
			said = ""
		case err.Error() != said && ctx.Err() == nil:
			said = err.Error()
			log.Warn("the metrics can't be written", "file", file, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(textfileEvery):
		}
	}
}

func (g *gauges) collect(p *metrics.Page) {
	p.Gauge("sigild_build_info", "1, with the version of this build.", 1, "version", version)
	g.process(p)
	g.server.Collect(p)
	st, err := g.status.GetStatus(context.Background(), &sigilv1.GetStatusRequest{})
	if err != nil {
		return // it never fails
	}
	p.Flag("sigild_sealed", "Whether the store is sealed: nothing signs.", st.GetSealed())
	info := g.keeper.vault.Info()
	p.Flag("sigild_unwritable", "Whether a write failed with an unclear outcome: nothing signs until a restart.", info.Unwritable)
	for _, kind := range []vault.AnchorKind{vault.AnchorNone, vault.AnchorNV, vault.AnchorKEKRoll} {
		p.Flag("sigild_anchor", "1 for what anchors the store against older copies.", info.Anchor == kind, "kind", string(kind))
	}
	if free, ok := g.free(); ok {
		p.Gauge("sigild_state_free_bytes", "Space that is left where the store is.", free)
	}
	if st.GetSealed() {
		return
	}
	g.store(p, st, info)
	g.devices(p, st)
}

// store is what is known while it is open.
func (g *gauges) store(p *metrics.Page, st *sigilv1.GetStatusResponse, info vault.Info) {
	p.Gauge("sigild_records", "Sealed records.", float64(info.Records))
	p.Counter("sigild_store_updates_total", "Updates of the store since it was made.", info.Seq)
	p.Counter("sigild_anchor_moves_total", "Epochs of the store: how often its anchor moved. A TPM's counter wears out.", info.Epoch)
	p.Flag("sigild_rotating", "Whether records are being wrapped under a new root key.", info.Rotating)
	p.Counter("sigild_journal_entries_total", "Entries of the journal.", st.GetJournalSequence())
	p.Counter("sigild_journal_signed_total", "Entries of the journal under a checkpoint of the device.", st.GetCheckpointSequence())
	p.Flag("sigild_checkpoint_failing", "Whether the device did not sign the last checkpoint. After 5 minutes nothing is approved.", st.CheckpointAlarm != nil)
	if st.ArchiveSequence != nil {
		p.Counter("sigild_archived_entries_total", "Entries of the journal in the archive.", st.GetArchiveSequence())
		p.Flag("sigild_archive_failing", "Whether the last segment could not be written.", st.ArchiveAlarm != nil)
	}
	p.Flag("sigild_paused", "Whether the whole appliance is paused.", st.Paused != nil)
	p.Gauge("sigild_keys", "Keys, made or being made.", float64(st.GetKeys()))
	p.Gauge("sigild_keys_host_custody", "Keys of which this host alone holds a quorum.", float64(st.GetKeysInHostCustody()))
	p.Gauge("sigild_preparameters_ready", "Sets of pre-parameters ready for ceremonies.", float64(st.GetPreParametersReady()))
	p.Gauge("sigild_preparameters_target", "Sets of pre-parameters that are wanted.", float64(st.GetPreParametersTarget()))
	if f := st.GetPolicyFiles(); f != nil {
		p.Gauge("sigild_policy_files", "Policy files of the appliance in force.", float64(f.GetFiles()))
		p.Flag("sigild_policy_files_failing", "Whether the policy files that lie there are not in force.", f.Alarm != nil)
	}
}

// devices are the sealing devices.
func (g *gauges) devices(p *metrics.Page, st *sigilv1.GetStatusResponse) {
	s := st.GetSealing()
	for _, d := range s.GetDevices() {
		p.Flag("sigild_device_up", "Whether a sealing device is here, by its name in the configuration.", d.Alarm == nil, "device", d.GetName())
	}
	p.Flag("sigild_shares_pending", "Whether shares may still be sealed otherwise than parts says.", s.GetPending())
	p.Gauge("sigild_theft_devices", "Devices of which each, stolen alone with the disk, yields a quorum of shares; 0: two are needed.", float64(len(s.GetTheftOf())))
	p.Gauge("sigild_missing_protections", "Attributes that keys in tokens lack.", float64(len(st.GetMissingProtections())))
	if l := st.GetTpmLockout(); l != nil {
		p.Flag("sigild_tpm_locked", "Whether the TPM's lockout holds.", l.GetLocked())
		p.Gauge("sigild_tpm_wrong_tries", "Wrong tries that the TPM remembers.", float64(l.GetTries()))
		p.Gauge("sigild_tpm_max_tries", "Wrong tries that lock the TPM.", float64(l.GetMaxTries()))
	}
	r := g.keeper.seen.Load()
	if r == nil {
		return
	}
	p.Gauge("sigild_credentials_unused", "Credentials that nobody used for as long as their alarm says, looked at every hour.", float64(r.delegation.UnusedCount()))
	open := r.devices.here()
	for _, name := range slices.Sorted(maps.Keys(open)) {
		d, ok := open[name].(seal.Counting)
		if !ok {
			continue
		}
		calls := d.Calls()
		for _, call := range slices.Sorted(maps.Keys(calls)) {
			p.Counter("sigild_device_calls_total", "Calls of a sealing device since it was opened, by what for.", calls[call], "device", name, "call", call)
		}
	}
}

// process is this process.
func (g *gauges) process(p *metrics.Page) {
	p.Gauge("sigild_start_time_seconds", "When this process began to serve, Unix time.", float64(g.began.Unix()))
	p.Gauge("sigild_goroutines", "Goroutines.", float64(runtime.NumGoroutine()))
	if rss, err := residentBytes(); err == nil {
		p.Gauge("sigild_resident_bytes", "Memory in use.", float64(rss))
	}
}

func residentBytes() (int, error) {
	text, err := os.ReadFile("/proc/self/statm") // proc(5): pages: size, resident, …
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0, fmt.Errorf("reading statm: %d fields", len(f))
	}
	pages, err := strconv.Atoi(f[1])
	return pages * os.Getpagesize(), err
}

func (g *gauges) free() (float64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(g.cfg.StateDir, &st); err != nil {
		return 0, false
	}
	return float64(st.Bavail) * float64(st.Bsize), true
}
